"""Read presets and files with everything that they extend, lowest first."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmkit.config.changes import Change, file_change
from llmkit.config.presets import find_preset
from llmkit.config.tree import Layer, Node
from llmkit.config.yaml_files import read_yaml, shown_path
from llmkit.errors import ConfigError

EXTENDS = "extends"


def preset_changes(command: str, preset: str) -> list[Change]:
    """The chain of a preset.

    Raises:
        ConfigError: a file of the chain cannot be found or read, or the chain is a ring.
    """
    try:
        path = find_preset(command, preset)
    except ConfigError as error:
        raise ConfigError(f"--preset {preset}: {error}") from None
    return _Chain(command, "preset").changes(path)


def file_changes(command: str, files: Sequence[Path]) -> list[Change]:
    """The chains of `--config` files, in order.

    Raises:
        ConfigError: files cannot be found or read, or a chain is a ring; every such fault is told.
    """
    changes: list[Change] = []
    problems: list[str] = []
    for path in files:
        try:
            changes += _Chain(command, "file").changes(path)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return changes


@dataclass
class _Chain:
    """Walks `extends`. A file that is reached twice counts once, at its first and lowest place."""

    command: str
    layer: Layer
    _done: set[Path] = field(default_factory=set)
    _open: list[Path] = field(default_factory=list)

    def changes(self, path: Path) -> list[Change]:
        identity = path.resolve()
        if identity in self._done:
            return []
        self._open.append(identity)
        root = read_yaml(path, self.layer)
        changes: list[Change] = []
        for node in _extended(root):
            changes += self._parent(node, path)
        self._open.pop()
        self._done.add(identity)
        return [*changes, file_change(root.with_child(EXTENDS, None))]

    def _parent(self, node: Node, child: Path) -> list[Change]:
        try:
            path = find_preset(self.command, node.value, beside=child.parent)
        except ConfigError as error:
            raise ConfigError(f"{node.origin.place}: {EXTENDS}: {error}") from None
        if path.resolve() in self._open:
            ring = [*self._open[self._open.index(path.resolve()) :], path]
            names = " -> ".join(shown_path(member) for member in ring)
            raise ConfigError(f"{node.origin.place}: {EXTENDS}: a ring: {names}; take one of them out")
        return self.changes(path)


def _extended(root: Node) -> list[Node]:
    """The names after `extends:`."""
    node = root.child(EXTENDS)
    if node is None:
        return []
    names = list(node.value) if node.is_list else [node]
    for name in names:
        if not isinstance(name.value, str) or not name.value:
            raise ConfigError(f"{name.origin.place}: {EXTENDS}: must be a preset, a file, or a list of them")
    return names
