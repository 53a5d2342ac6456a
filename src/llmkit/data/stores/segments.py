"""Open a path with the store that reads it: one file, or a directory of files that count as one list of sequences."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit import plugins
from llmkit.data.stores.contract import Store, Tokens, TokenSequences
from llmkit.errors import DataError, PluginError
from llmkit.types import Source

if TYPE_CHECKING:
    import numpy as np

    from llmkit.config.section import PluginSection


class Segments:
    """The sequences of several files, one file after the other."""

    def __init__(self, parts: Sequence[TokenSequences]) -> None:
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    @property
    def files(self) -> Sequence[Path]:
        """The files of all parts."""
        return [file for part in self._parts for file in part.files]

    @property
    def lengths(self) -> "np.ndarray":
        """Tokens of each sequence."""
        import numpy as np

        return np.concatenate([part.lengths for part in self._parts])

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, index: int, start: int = 0, end: int | None = None) -> Tokens:
        """Tokens of a sequence."""
        part, number = self._locate(index)
        return part.read(number, start, end)

    def source(self, index: int) -> Source:
        """Its place in its own file."""
        part, number = self._locate(index)
        return part.source(number)

    def _locate(self, index: int) -> tuple[TokenSequences, int]:
        part = bisect_right(self._ends, index)
        return self._parts[part], index - (self._ends[part - 1] if part else 0)


def open_sequences(path: Path, section: "PluginSection | None") -> TokenSequences:
    """The sequences of a file, or of all files of a directory in the order of their names.

    Args:
        path: a file or a directory.
        section: the store and its options; None takes the one whose files end so.
    Raises:
        DataError: there is no such file, no store reads it, or several could; or it is damaged.
        PluginError: there is no such store.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or directory")
    inside = sorted(file for file in path.iterdir() if not file.name.startswith(".")) if path.is_dir() else [path]
    store: Store = _store_for(path, inside) if section is None else _build(section)
    segments = [path]
    # A store's file may be a directory itself.
    if path.is_dir() and path.suffix.lower() not in store.suffixes:
        segments = [file for file in inside if file.suffix.lower() in store.suffixes]
    if not segments:
        raise DataError(f"{path}: no {' or '.join(store.suffixes)} file in this directory")
    parts = [store.open(segment) for segment in segments]
    return parts[0] if len(parts) == 1 else Segments(parts)


def _build(section: "PluginSection") -> Store:
    return plugins.load("stores", section.name).build(section)


def _store_for(path: Path, inside: Sequence[Path]) -> Store:
    """The one store that reads files with these names."""
    suffixes = {file.suffix.lower() for file in (path, *inside)}
    stores = _stores()
    fitting = {name: store for name, store in stores.items() if suffixes.intersection(store.suffixes)}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    known = ", ".join(f"{name} ({' '.join(store.suffixes)})" for name, store in stores.items())
    if fitting:
        raise DataError(f"{path}: files of several stores: choose with --set dataset.store={' or '.join(fitting)}")
    raise DataError(f"{path}: no store has files that end so. Choose with --set dataset.store=NAME. Stores: {known}")


def _stores() -> dict[str, Store]:
    """Every store with its default options, by name."""
    stores: dict[str, Any] = {}
    for name in plugins.names("stores"):
        try:
            plugin = plugins.load("stores", name)
            stores[name] = plugin.build(plugin.Config())
        except (PluginError, ValueError):
            continue  # one that cannot be loaded, or needs options, can still be named
    return stores
