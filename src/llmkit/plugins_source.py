"""Where a plugin's source is and what it says about itself, found without importing it."""

import ast
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path


def docstring_line(module: str, attribute: str | None = None) -> str:
    """First line of the docstring of `attribute` when it is a function or class of the module, else of the module.

    Empty when the source is not found or cannot be read.
    """
    path = source_file(module)
    if path is None:
        return ""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    text = _definition_docstring(tree, attribute) or ast.get_docstring(tree) or ""
    return text.partition("\n")[0].strip()


def source_file(module: str) -> Path | None:
    """The `.py` file of a module; no package on the way to it is imported."""
    spec = _spec(module)
    if spec is None or not spec.has_location or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def folder(package: str) -> Path | None:
    """The folder of a package; None when there is none."""
    spec = _spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return next((Path(place) for place in spec.submodule_search_locations if Path(place).is_dir()), None)


def _spec(module: str) -> ModuleSpec | None:
    """`importlib.util.find_spec` without the import of parent packages."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    for depth, _ in enumerate(rest, start=2):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(module.split(".")[:depth]), spec.submodule_search_locations)
    return spec


def _definition_docstring(tree: ast.Module, attribute: str | None) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == attribute:
            return ast.get_docstring(node)
    return None
