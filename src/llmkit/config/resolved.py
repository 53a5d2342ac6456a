"""A resolved configuration: the run itself, and where every value of it came from."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import SecretStr
from pydantic_core import to_jsonable_python

from llmkit.config.changes import Change
from llmkit.config.docs import FieldDoc, describe_plugin_name, describe_slot
from llmkit.config.dump import write_yaml
from llmkit.config.masking import MASK, Masking
from llmkit.config.merging import as_plugin_section
from llmkit.config.problems import place_of
from llmkit.config.references import escape, variable_of
from llmkit.config.scalars import write_flow
from llmkit.config.section import PluginSection, Section
from llmkit.config.semantic import semantic_hash
from llmkit.config.shape import slot_at
from llmkit.config.suggestions import suggest_key
from llmkit.config.tree import DEFAULT, KeyPath, Node, Origin, dotted
from llmkit.errors import ConfigError

R = TypeVar("R", bound=Section)

Key = str | KeyPath
"""A key as people write it, or as a path: a key of a free section may itself have a dot."""


@dataclass(frozen=True)
class Explanation:
    """What is known about one key of a run.

    Attributes:
        path: the key.
        value: its value, masked when it is a secret; None for sections.
        is_section: whether it holds other keys.
        origin: where the value was written.
        written: what was written there, when that is a reference.
        items: items of a list that were set apart from it: index and where.
        overridden: who else spoke about the key, lowest first.
        reset_by: the `--set ~key` that put it back to its default, if that is what happened.
        doc: help, type, default and limits.
    """

    path: str
    value: Any
    is_section: bool
    origin: Origin
    written: str
    items: tuple[tuple[int, Origin], ...]
    overridden: tuple[Origin, ...]
    reset_by: Origin | None
    doc: FieldDoc


@dataclass(frozen=True)
class Resolved(Generic[R]):
    """One run's configuration.

    Attributes:
        command: `train/grpo`, say.
        schema: the command's schema.
        run: the validated sections, frozen.
        settings: what was set, references as they were written.
        nodes: the same, expanded, with default plugins named.
        changes: what every source asked for, lowest first.
        used: which keys the references of a key name.
    """

    command: str
    schema: type[R]
    run: R
    settings: Node
    nodes: Node
    changes: Sequence[Change]
    used: Mapping[KeyPath, Set[KeyPath]]

    @cached_property
    def tree(self) -> dict[str, Any]:
        """Every setting as plain values, defaults and secrets included; never show it, show `masked()`."""
        return _bare(self.run)

    def masked(self) -> dict[str, Any]:
        """Every setting as plain values, secrets masked."""
        return self._masking.masked(self.tree)

    def semantic_hash(self) -> str:
        """SHA-256 of everything that decides what is computed; see `semantic_hash`."""
        return semantic_hash(self.tree, type(self.run))

    def origin(self, path: Key) -> Origin:
        """Where the value of a key was written.

        Raises:
            ConfigError: the run has no such key.
        """
        return self._origin(self._parts(path))

    def value(self, path: Key) -> Any:
        """The value of a key as plain values, secrets masked.

        Raises:
            ConfigError: the run has no such key.
        """
        value: Any = self.masked()
        for part in self._parts(path):
            value = value[int(part)] if isinstance(value, list) else value.get(part)
        return value

    def explain(self, path: Key) -> Explanation:
        """Everything about one key: its value, who set it, whom that overrode, and what it means.

        Raises:
            ConfigError: the run has no such key.
        """
        parts = self._parts(path)
        origin, value = self._origin(parts), self.value(path)
        items = self._items_set(parts)
        current = {origin.place, *(item.place for _, item in items)}
        history = self._history(parts)
        return Explanation(
            path=dotted(parts),
            value=value,
            is_section=isinstance(value, dict),
            origin=self._shown(origin, parts),
            written=self._shown_reference(parts),
            items=tuple(items),
            overridden=tuple(
                self._shown(one, parts) for one, is_reset in history if one.place not in current and not is_reset
            ),
            reset_by=history[-1][0] if history and history[-1][1] else None,
            doc=self._doc(parts),
        )

    def _doc(self, path: KeyPath) -> FieldDoc:
        """What a key means; what chooses a plugin is described by the command's schema, the rest by this run's."""
        for depth in (len(path), len(path) - 1):
            slot = slot_at(self.schema, path[:depth], self.nodes)
            if slot is None or slot.kind is None or not slot.is_plugin:
                continue
            if depth == len(path):
                return describe_slot(slot, self.schema, path, self.nodes)
            if path[depth:] == ("name",):
                return describe_plugin_name(slot.kind)
        slot = slot_at(type(self.run), path)
        assert slot is not None, "the path is one of the run's"
        return describe_slot(slot, type(self.run), path)

    def to_yaml(self) -> str:
        """A file that resolves to this run when it is given alone; a comment after each value says where it came from.

        A secret is a mask, unless it came from an environment variable: then it is the reference to it.
        """
        header = (
            f"# llmkit {self.command.replace('/', ' ')}\n"
            "# Every setting of the run, and where it came from. Given with --config, this file repeats the run.\n"
        )
        return header + write_yaml(self.tree, self._text, self._comment)

    def leaf_paths(self, path: Key = ()) -> list[KeyPath]:
        """Every key of a section that is no section itself, in order; of any other key, itself.

        Raises:
            ConfigError: the run has no such key.
        """
        parts = self._parts(path)
        value: Any = self.tree
        for part in parts:
            value = value[int(part)] if isinstance(value, list) else value[part]
        return _leaf_paths(value, parts)

    def _parts(self, path: Key) -> KeyPath:
        parts = tuple(path.split(".")) if isinstance(path, str) else path
        value: Any = self.tree
        for part in parts:
            held = {str(index): item for index, item in enumerate(value)} if isinstance(value, list) else value
            if not isinstance(held, dict) or part not in held:
                raise ConfigError(f"{dotted(parts)}: no such key. {suggest_key(type(self.run), parts)}")
            value = held[part]
        return parts

    def _origin(self, path: KeyPath) -> Origin:
        node = self.nodes.find(path)
        return node.origin if node is not None else DEFAULT

    def _history(self, path: KeyPath) -> "list[tuple[Origin, bool]]":
        """Who spoke about a key, lowest first, and whether to reset it."""
        spoken: list[tuple[Origin, bool]] = []
        for change in self.changes:
            depth = min(len(change.path), len(path))
            if change.path[:depth] != path[:depth]:
                continue
            if change.node is None:
                spoken.append((change.origin, True))
            elif len(change.path) > len(path):
                spoken.append((change.origin, False))
            else:
                node = _found(change.node, path[depth:])
                if node is not None:
                    spoken.append((node.origin, False))
        return spoken

    def _reference(self, path: KeyPath) -> str | None:
        """The reference that a value was written as, if it was."""
        node = self.settings.find(path)
        return node.value if node is not None and isinstance(node.value, str) and "${" in node.value else None

    @cached_property
    def _masking(self) -> Masking:
        return Masking(type(self.run), self.used)

    def _shown_reference(self, path: KeyPath) -> str:
        """The reference that a value was written as; of a secret, without a literal part."""
        written = self._reference(path) or ""
        return (self._secret_source(path) or MASK) if written and self._masking.hides(path) else written

    def _shown(self, origin: Origin, path: KeyPath) -> Origin:
        """An origin without the text of a secret, of its own or of a key inside."""
        has_secret = any(map(self._masking.hides, [path, *self.leaf_paths(path)]))
        return replace(origin, text=MASK) if has_secret and origin.text else origin

    def _text(self, path: KeyPath, value: Any) -> str:
        """A leaf as `to_yaml` writes it."""
        if value is not None and self._masking.hides(path):
            return write_flow(self._secret_source(path) or MASK)
        return write_flow(_escaped(value))

    def _secret_source(self, path: KeyPath) -> str | None:
        """The environment variable that a secret came from, as a reference."""
        variable = variable_of(self._reference(path) or "")
        origin = self._origin(path)
        if origin.layer == "environment" and origin.plain and self._reference(path) is None:
            variable = origin.place
        return f"${{env:{variable}}}" if variable else None

    def _comment(self, path: KeyPath) -> str:
        place = place_of(replace(self._origin(path), text=""))
        written = self._reference(path)
        items = "".join(f"; {index}: {one.place}" for index, one in self._items_set(path))
        return f"{place} {written}" if written and not self._masking.hides(path) else place + items

    def _items_set(self, path: KeyPath) -> "list[tuple[int, Origin]]":
        """The items of a list that were set apart from it."""
        node = self.nodes.find(path)
        if node is None or not node.is_list:
            return []
        return [(index, item.origin) for index, item in enumerate(node.value) if item.origin.layer != node.origin.layer]


def _found(node: Node, path: KeyPath) -> Node | None:
    """The node at a path; the name of a plugin also where only its name was written in place of a section."""
    holder = node.find(path[:-1]) if path[-1:] == ("name",) else None
    return as_plugin_section(holder).child("name") if holder is not None else node.find(path)


def _bare(value: Any) -> Any:
    """Sections as dicts, the name of a plugin first; everything else as YAML has it."""
    if isinstance(value, Section):
        names = sorted(
            type(value).model_fields, key=lambda name: not (name == "name" and isinstance(value, PluginSection))
        )
        return {name: _bare(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _bare(child) for key, child in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_bare(item) for item in value]
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value if value is None or isinstance(value, str | int | float) else to_jsonable_python(value)


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value


def _leaf_paths(value: Any, path: KeyPath) -> list[KeyPath]:
    if isinstance(value, dict) and value:
        return [leaf for name, child in value.items() for leaf in _leaf_paths(child, (*path, name))]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [leaf for index, child in enumerate(value) for leaf in _leaf_paths(child, (*path, str(index)))]
    return [path]
