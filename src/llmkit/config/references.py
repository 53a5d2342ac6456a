"""Expand `${a.b}` and `${env:NAME:-default}` in a finished tree; `$${` stands for a literal `${`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llmkit.config.scalars import read_scalar, write_scalar
from llmkit.config.shape import MISSING
from llmkit.config.tree import DEFAULT, KeyPath, Node, Origin, dotted, from_plain, moved

REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
VARIABLE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
KEY = re.compile(r"[\w-]+(\.[\w-]+)*")


class UnresolvedError(Exception):
    """A reference that cannot be expanded; the message says why."""


def escape(text: str) -> str:
    """Text that expands to itself."""
    return text.replace("${", "$${")


def variable_of(text: str) -> str | None:
    """NAME when the whole text is `${env:NAME}` or `${env:NAME:-default}`, else None."""
    whole = REFERENCE.fullmatch(text)
    variable = VARIABLE.fullmatch(whole[1]) if whole and whole[1] is not None else None
    return variable[1] if variable else None


@dataclass
class Expander:
    """Expands the references of one tree.

    Attributes:
        settings: the tree.
        default: gives the default of a path that the tree does not have, `MISSING` when there is none.
        environ: the environment variables.
        problems: what could not be expanded: path, origin and reason.
        used: which paths the value of a path was made from.
    """

    settings: Node
    default: Callable[[KeyPath], Any]
    environ: Mapping[str, str]
    problems: list[tuple[KeyPath, Origin, str]] = field(default_factory=list)
    used: dict[KeyPath, set[KeyPath]] = field(default_factory=dict)
    _open: list[KeyPath] = field(default_factory=list)

    def expand(self) -> Node:
        """The whole tree; a value that cannot be expanded stays as it is and is listed in `problems`."""
        return self._tree(self.settings, ())

    def value_at(self, path: KeyPath) -> Node | None:
        """The expanded node at a path, default values included; None when there is none.

        Raises:
            UnresolvedError: a reference on the way cannot be expanded.
        """
        node: Node = self.settings
        expanded = False  # what a reference gave is finished; expanding it again would undo its escapes
        for depth, part in enumerate(path):
            if not expanded:
                before, node = node, self._scalar(node, path[:depth])
                expanded = node is not before
            child = node.child(part)
            if child is None:
                return self._default(path)
            node = child
        return node if expanded else self._strict(node, path)

    def _default(self, path: KeyPath) -> Node | None:
        default = self.default(path)
        if default is MISSING:
            return None
        if hasattr(default, "model_dump"):
            default = default.model_dump()
        return from_plain(default, DEFAULT)

    def _tree(self, node: Node, path: KeyPath) -> Node:
        """Everything below a node; problems are listed and leave the value as it is."""
        try:
            return self._scalar(node, path) if not _holds(node) else self._inside(node, path, self._tree)
        except UnresolvedError as problem:
            self.problems.append((path, node.origin, str(problem)))
            return node

    def _strict(self, node: Node, path: KeyPath) -> Node:
        """Everything below a node; the first problem ends it."""
        return self._scalar(node, path) if not _holds(node) else self._inside(node, path, self._strict)

    def _inside(self, node: Node, path: KeyPath, expand: Callable[[Node, KeyPath], Node]) -> Node:
        if node.is_section:
            return replace(node, value={key: expand(child, (*path, key)) for key, child in node.value.items()})
        return replace(node, value=tuple(expand(item, (*path, str(i))) for i, item in enumerate(node.value)))

    def _scalar(self, node: Node, path: KeyPath) -> Node:
        """The node with its references put in; sections and lists as they are."""
        text = node.value
        if not isinstance(text, str) or "${" not in text:
            return node
        if path in self._open:
            ring = " -> ".join(map(dotted, [*self._open[self._open.index(path) :], path]))
            raise UnresolvedError(f"the references form a ring: {ring}")
        self._open.append(path)
        try:
            return self._expanded(node, text, path)
        finally:
            self._open.pop()

    def _expanded(self, node: Node, text: str, path: KeyPath) -> Node:
        whole = REFERENCE.fullmatch(text)
        if whole and whole[1] is not None:
            found = self._refer(whole[1], path)
            if isinstance(found, str):
                return replace(node, value=read_scalar(found), origin=replace(node.origin, text=found, plain=True))
            return replace(moved(found, node.origin), key=node.key)
        if "${" in REFERENCE.sub(" ", text):
            raise UnresolvedError(f"{text!r} has a '${{' without its '}}'; a literal one is written '$${{'")
        return replace(node, value=REFERENCE.sub(lambda match: self._text(match, path), text))

    def _text(self, match: re.Match[str], path: KeyPath) -> str:
        """What stands in the text in place of one reference."""
        if match[1] is None:
            return "${"
        found = self._refer(match[1], path)
        if isinstance(found, str):
            return found
        if _holds(found):
            raise UnresolvedError(f"{match[0]} is a {'section' if found.is_section else 'list'}, not text")
        return found.value if isinstance(found.value, str) else write_scalar(found.value)

    def _refer(self, inside: str, path: KeyPath) -> Node | str:
        """The node of a key, or the text of an environment variable."""
        if inside.startswith("env:"):
            return self._variable(inside)
        if not KEY.fullmatch(inside):
            raise UnresolvedError(f"${{{inside}}} is not a reference; there are ${{a.b}} and ${{env:NAME:-default}}")
        target = tuple(inside.split("."))
        if target == path[: len(target)]:
            raise UnresolvedError(f"${{{inside}}} refers to itself")
        self.used.setdefault(path, set()).add(target)
        found = self.value_at(target)
        if found is None:
            raise UnresolvedError(f"${{{inside}}}: no key {inside} has a value")
        return found

    def _variable(self, inside: str) -> str:
        match = VARIABLE.fullmatch(inside)
        if match is None:
            raise UnresolvedError(f"${{{inside}}}: the form is ${{env:NAME}} or ${{env:NAME:-default}}")
        name, default = match[1], match[2]
        value = self.environ.get(name) or default  # as in a shell, `:-` also answers for an empty variable
        if value is None:
            value = self.environ.get(name)
        if value is None:
            raise UnresolvedError(
                f"the environment variable {name} is not set; set it, or write ${{env:{name}:-default}}"
            )
        return value


def _holds(node: Node) -> bool:
    return node.is_section or node.is_list
