"""Read YAML with positions. Whatever is wrong with a file is one line that begins `file:line:column`."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmkit.config.scalars import read_scalar
from llmkit.config.tree import Layer, Node, Origin
from llmkit.errors import ConfigError

MAX_DEPTH = 50
MAX_NODES = 100_000  # anchors can make a short file as large as the memory
TEXT_TAG = "tag:yaml.org,2002:str"
WORDING = {
    "found character that cannot start any token": "this character cannot begin a value; put the text in quotes",
    "mapping values are not allowed in this context": "unexpected ':'; text that holds ': ' goes in quotes, and keys "
    "of one section are indented alike",
    "could not find expected ':'": "expected 'key: value'",
    "found unexpected end of stream": "the file ends inside quotes",
    "did not find expected key": "expected 'key: value' here; the keys of one section are indented alike",
    "did not find expected '-' indicator": "expected another '- item' here; lists and keys do not mix",
    "did not find expected node content": "expected a value; text that begins with a sign goes in quotes",
}


def read_yaml(path: Path, layer: Layer) -> Node:
    """The settings of one file; a file of comments alone has none.

    Raises:
        ConfigError: the file is missing, unreadable, empty, not UTF-8, not YAML, or not a mapping.
    """
    shown = shown_path(path)
    text = _read_text(path, shown)
    root = parse_yaml(text, shown, layer)
    if root is None:
        return Node({}, Origin(layer, f"{shown}:1:1"))
    if not root.is_section:
        raise ConfigError(f"{root.origin.place}: a configuration is 'key: value' lines; this is {_kind(root)}")
    return root


def parse_yaml(text: str, shown: str, layer: Layer) -> Node | None:
    """One YAML document as a tree, None when it holds nothing; `shown` is how errors name the file."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Composer(list(yaml.parse(text, Loader=loader)), shown, layer).document()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_error(error, text, shown)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{shown}: not a text file: {str(error).splitlines()[0]}") from None
    except UnicodeEncodeError:
        raise ConfigError(f"{shown}: not text: it holds half of a character (a lone surrogate)") from None


def shown_path(path: Path) -> str:
    """A path as messages show it: relative when it lies below the working directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def leading_comment(text: str) -> str:
    """The comment lines that a file begins with, without their signs."""
    lines: list[str] = []
    for line in text.lstrip("\ufeff").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return "\n".join(lines).strip()


def _read_text(path: Path, shown: str) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{shown}: no such file{_near(path)}") from None
    except IsADirectoryError:
        inside = path / "config.yaml"
        hint = f"; did you mean {shown_path(inside)}?" if inside.is_file() else "; give a YAML file"
        raise ConfigError(f"{shown}: this is a directory{hint}") from None
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror or error}") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{shown}: not UTF-8 but UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{shown}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8") from None
    if not text.strip():
        raise ConfigError(f"{shown}: the file is empty")
    return text


def _near(path: Path) -> str:
    """A suggestion when a file of a like name lies in the same directory."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix in (".yaml", ".yml")]
    except OSError:
        return f"; there is no directory {path.parent} either"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f". Did you mean '{close[0]}'?" if close else ""


def _syntax_error(error: Any, text: str, shown: str) -> str:
    """A YAML syntax error in one line."""
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    place = f"{shown}:{mark.line + 1}:{mark.column + 1}"
    if line[mark.column : mark.column + 1] == "\t" or line[: len(line) - len(line.lstrip())].count("\t"):
        return f"{place}: a tab in the indentation; YAML takes spaces only"
    problem = WORDING.get(error.problem, error.problem or "not YAML")
    if error.context and error.context_mark and error.context_mark.line != mark.line:
        problem += f" ({error.context} that begins on line {error.context_mark.line + 1})"
    return f"{place}: {problem}"


def _kind(node: Node) -> str:
    return "a list" if node.is_list else f"the single value {node.origin.text!r}"


class _Composer:
    """Builds the tree from the events of the YAML parser."""

    def __init__(self, events: list[Any], shown: str, layer: Layer) -> None:
        self._events: Iterator[Any] = iter(events)
        self._shown = shown
        self._layer: Layer = layer
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._num_nodes = 0

    def document(self) -> Node | None:
        """The only document."""
        import yaml

        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self._error(event, "a second document begins; one file holds one configuration")
                root = self._node(next(self._events), 0)
        return None if root is None or root.value is None else root

    def _node(self, event: Any, depth: int) -> Node:
        import yaml

        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._count(event, 1)
        if depth > MAX_DEPTH:
            raise self._error(event, f"nested deeper than {MAX_DEPTH} levels")
        if event.tag not in (None, "!", TEXT_TAG):
            raise self._error(event, f"tags ({event.tag}) are not read; write the plain value")
        before = self._num_nodes - 1
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._list(event, depth)
        else:
            node = self._section(event, depth)
        if event.anchor:
            self._anchors[event.anchor] = (node, self._num_nodes - before)
        return node

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            raise self._error(event, f"no anchor &{event.anchor} before this; text that begins with * goes in quotes")
        node, size = self._anchors[event.anchor]
        self._count(event, size)
        return node

    def _scalar(self, event: Any) -> Node:
        is_plain = event.implicit[0] and event.tag is None
        value = read_scalar(event.value) if is_plain else event.value
        return Node(value, Origin(self._layer, self._place(event), event.value))

    def _list(self, start: Any, depth: int) -> Node:
        import yaml

        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Node(tuple(items), Origin(self._layer, self._place(start)))

    def _section(self, start: Any, depth: int) -> Node:
        import yaml

        entries: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, entries)
            node = self._node(next(self._events), depth + 1)
            entries[key] = Node(node.value, node.origin, Origin(self._layer, self._place(event), key))
        return Node(entries, Origin(self._layer, self._place(start)))

    def _key(self, event: Any, entries: dict[str, Node]) -> str:
        import yaml

        if not isinstance(event, yaml.ScalarEvent):
            raise self._error(event, "a key is plain text, not a list, a section or an alias")
        if event.value == "<<" and event.implicit[0]:
            raise self._error(event, "merge keys (<<) are not read; use 'extends:' or repeat the settings")
        if event.value in entries:
            former = entries[event.value].key
            assert former is not None
            raise self._error(event, f"{event.value}: this key was given before, at {former.place}; keep one")
        return event.value

    def _count(self, event: Any, size: int) -> None:
        self._num_nodes += size
        if self._num_nodes > MAX_NODES:
            raise self._error(event, f"more than {MAX_NODES} values; aliases (*) repeat what they name")

    def _place(self, event: Any) -> str:
        return f"{self._shown}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"

    def _error(self, event: Any, problem: str) -> ConfigError:
        return ConfigError(f"{self._place(event)}: {problem}")
