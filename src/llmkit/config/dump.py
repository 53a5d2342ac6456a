"""Write a whole configuration as YAML, one value a line with a comment after it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llmkit.config.scalars import write_scalar
from llmkit.config.tree import KeyPath

INDENT = "  "


def write_yaml(tree: Mapping[str, Any], text: Callable[[KeyPath, Any], str], comment: Callable[[KeyPath], str]) -> str:
    """YAML of a tree of plain values.

    Args:
        tree: sections as dicts.
        text: writes the value at a path on one line.
        comment: what to say after it.
    """
    return "".join(f"{line}\n" for line in _section(tree, (), "", _Writer(text, comment)))


class _Writer:
    def __init__(self, text: Callable[[KeyPath, Any], str], comment: Callable[[KeyPath], str]) -> None:
        self._text = text
        self._comment = comment

    def leaf(self, path: KeyPath, value: Any) -> str:
        """A value and its comment."""
        comment = "".join(character if character.isprintable() else "?" for character in self._comment(path))
        return f"{self._text(path, value)}  # {comment}"


def _section(section: Mapping[str, Any], path: KeyPath, indent: str, writer: _Writer) -> Iterator[str]:
    for key, value in section.items():
        name = f"{indent}{write_scalar(str(key))}:"
        inner = (*path, str(key))
        if isinstance(value, Mapping) and value:
            yield name
            yield from _section(value, inner, indent + INDENT, writer)
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) and item for item in value):
            yield name
            yield from _items(value, inner, indent + INDENT, writer)
        else:
            yield f"{name} {writer.leaf(inner, value)}"


def _items(items: Sequence[Any], path: KeyPath, indent: str, writer: _Writer) -> Iterator[str]:
    """Items of a list, each after a dash."""
    for index, item in enumerate(items):
        inner = (*path, str(index))
        if isinstance(item, Mapping) and item:
            first, *rest = _section(item, inner, indent + INDENT, writer)
            yield f"{indent}- {first.removeprefix(indent + INDENT)}"
            yield from rest
        else:
            yield f"{indent}- {writer.leaf(inner, item)}"
