"""Settings as a tree in which every value knows where it was written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Layer = Literal["default", "preset", "file", "environment", "option", "set"]
KeyPath = tuple[str, ...]
"""Keys from the root down; an item of a list is named by its index as text."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written.

    Attributes:
        layer: which source of settings it belongs to.
        place: `file:line:column`, the flag, the environment variable, or `--set KEY`.
        text: the value as it was written; empty for sections and lists of a file.
        plain: the text has no quotes and no YAML of its own, as everything typed in a shell.
    """

    layer: Layer
    place: str
    text: str = ""
    plain: bool = False


DEFAULT = Origin("default", "default")


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place: a scalar, a tuple of nodes (a list) or a dict of nodes (a section).

    Attributes:
        value: what was written.
        origin: where the value stands.
        key: where its key stands, when it has one.
    """

    value: Any
    origin: Origin
    key: Origin | None = None

    @property
    def is_section(self) -> bool:
        """Whether it holds keys."""
        return isinstance(self.value, dict)

    @property
    def is_list(self) -> bool:
        """Whether it holds items."""
        return isinstance(self.value, tuple)

    def child(self, part: str) -> "Node | None":
        """The node under a key or a list index, None when there is none."""
        if self.is_section:
            return self.value.get(part)
        if self.is_list and part.isdecimal() and int(part) < len(self.value):
            return self.value[int(part)]
        return None

    def find(self, path: Sequence[str]) -> "Node | None":
        """The node at a path below this one, None when there is none."""
        node: Node | None = self
        for part in path:
            node = node.child(part) if node else None
        return node

    def with_child(self, part: str, child: "Node | None") -> "Node":
        """A copy in which `part` is `child`; None takes a key away."""
        if self.is_list:
            items = list(self.value)
            assert child is not None
            items[int(part)] = child
            return replace(self, value=tuple(items))
        entries = {key: node for key, node in self.value.items() if key != part or child is not None}
        if child is not None:
            entries[part] = child
        return replace(self, value=entries)


def plain(node: Node) -> Any:
    """The bare value: dicts, lists and scalars."""
    if node.is_section:
        return {key: plain(child) for key, child in node.value.items()}
    if node.is_list:
        return [plain(item) for item in node.value]
    return node.value


def from_plain(value: Any, origin: Origin) -> Node:
    """A tree in which everything has one origin."""
    if isinstance(value, Mapping):
        return Node({str(key): from_plain(child, origin) for key, child in value.items()}, origin, origin)
    if isinstance(value, list | tuple):
        return Node(tuple(from_plain(item, origin) for item in value), origin, origin)
    return Node(value, origin, origin)


def moved(node: Node, origin: Origin) -> Node:
    """The same values, all of them from one place."""
    if node.is_section:
        return Node({key: moved(child, origin) for key, child in node.value.items()}, origin, origin)
    if node.is_list:
        return Node(tuple(moved(item, origin) for item in node.value), origin, origin)
    return Node(node.value, origin, origin)


def wrap(path: Sequence[str], node: Node) -> Node:
    """Sections around a node, so that it lies at `path`."""
    for part in reversed(path):
        node = Node({part: node}, node.origin, node.origin)
    return node


def leaves(node: Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
    """Every scalar, empty list and empty section with its path, in order."""
    if node.is_section and node.value:
        for key, child in node.value.items():
            yield from leaves(child, (*path, key))
    elif node.is_list and node.value:
        for index, item in enumerate(node.value):
            yield from leaves(item, (*path, str(index)))
    else:
        yield path, node


def dotted(path: Sequence[str]) -> str:
    """A path as people write it: `optim.learning_rate`."""
    return ".".join(path)
