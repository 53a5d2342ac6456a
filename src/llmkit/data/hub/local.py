"""Data sets in Hugging Face's form on this machine: what `save_to_disk` wrote, and directories of data files."""

from pathlib import Path
from typing import Any

import datasets

from llmkit.data.files.local_file import LocalFile
from llmkit.data.hub.rows import LOADING_ERRORS, HubRows, HubStream, digest, reason
from llmkit.errors import DataError

SAVED = ("state.json", "dataset_dict.json")
FILE_BUILDERS = ("json", "csv", "parquet", "arrow", "text")
"""Names under which `datasets` loads data files without a repository."""


def is_saved(path: Path) -> bool:
    """Whether `save_to_disk` wrote a directory."""
    return any((path / name).is_file() for name in SAVED)


def load_from_disk(path: Path, split: str, *, limit: int | None) -> HubRows:
    """Rows of a directory that `save_to_disk` wrote.

    Args:
        split: a split, part of one (`train[:10%]`), or several (`train+test`).
    Raises:
        DataError: it is damaged, or lacks the split.
    """
    return HubRows(_stored(path, split), str(path), split, limit)


def stream_from_disk(path: Path, split: str, *, limit: int | None) -> HubStream:
    """The same rows, from front to back."""
    table = _stored(path, split)
    name = table._fingerprint
    return HubStream(table.to_iterable_dataset, f"{path}[{split}]", limit, lambda: name, lambda: digest([name, limit]))


def load_files(
    path: str, subset: str | None, split: str, *, data_files: str | list[str] | None, limit: int | None
) -> HubRows:
    """Rows of a directory in the form of a hub repository, or of data files by the name of their type.

    Args:
        path: the directory, or one of `FILE_BUILDERS`.
        data_files: which files, by names or patterns; None takes those that the directory's README or names say.
    Raises:
        DataError: there are no data files, no such subset or split, or a file is faulty.
    """
    try:
        table: Any = datasets.load_dataset(path, subset, split=split, data_files=data_files)
    except LOADING_ERRORS as error:
        raise DataError(f"{_where(path, subset, split)} cannot be loaded: {reason(error)}{_hint(path)}") from None
    return HubRows(table, path, split, limit)


def stream_files(
    path: str,
    subset: str | None,
    split: str,
    *,
    data_files: str | list[str] | None,
    limit: int | None,
    revision: str | None = None,
) -> HubStream:
    """Rows of a repository, here or on the hub, without loading them first.

    Raises:
        DataError: there is no such subset or split, or it is not a whole split.
    """
    where = _where(path, subset, split)
    if "[" in split or "+" in split:
        raise DataError(f"{where}: a stream is one whole split; use dataset.limit, or --set dataset.streaming=false")
    try:
        builder = datasets.load_dataset_builder(path, subset, data_files=data_files, revision=revision)
        files = [str(file) for file in (builder.config.data_files or {}).get(split, [])]
        builder.as_streaming_dataset(split=split)
    except LOADING_ERRORS as error:
        raise DataError(f"{where} cannot be loaded: {reason(error)}{_hint(path)}") from None

    def begin() -> datasets.IterableDataset:
        stream: Any = builder.as_streaming_dataset(split=split)
        return stream

    # The address of a file on the hub has the commit in it.
    def mark() -> str:
        return digest([file if "://" in file else LocalFile(Path(file)).mark() for file in files])

    def fingerprint() -> str:
        contents = [file if "://" in file else LocalFile(Path(file)).content_hash() for file in files]
        return digest([contents, subset, split, limit])

    return HubStream(begin, f"{path}[{split}]", limit, mark, fingerprint)


def _stored(path: Path, split: str) -> datasets.Dataset:
    try:
        stored = datasets.load_from_disk(str(path))
    except LOADING_ERRORS as error:
        raise DataError(f"{path}: the data set cannot be read: {reason(error)}") from None
    return _split_of(path, stored, split)


def _split_of(path: Path, stored: datasets.Dataset | datasets.DatasetDict, split: str) -> datasets.Dataset:
    try:
        parts = datasets.ReadInstruction.from_spec(split)
        names = [part.splitname for part in parts._relative_instructions]
        tables = _tables(path, stored, names)
        slices = parts.to_absolute({name: len(table) for name, table in tables.items()})
    except (ValueError, AssertionError) as error:
        raise DataError(f"{path}: dataset.split={split}: {reason(error)}") from None
    if len(slices) == 1 and slices[0].from_ is None and slices[0].to is None:
        return tables[names[0]]
    chosen = []
    for part in slices:
        table = tables[part.splitname]
        chosen.append(table.select(range(part.from_ or 0, len(table) if part.to is None else part.to)))
    return chosen[0] if len(chosen) == 1 else datasets.concatenate_datasets(chosen)


def _tables(
    path: Path, stored: datasets.Dataset | datasets.DatasetDict, names: list[str]
) -> dict[str, datasets.Dataset]:
    if isinstance(stored, datasets.DatasetDict):
        for name in names:
            if name not in stored:
                raise DataError(f"{path}: no split '{name}'; splits here: {', '.join(map(str, stored))}")
        return {name: stored[name] for name in names}
    # A table that was saved alone may not know its split; then it is called by the default.
    own = str(stored.split or "train")
    for name in names:
        if name != own:
            raise DataError(f"{path}: no split '{name}'; here is one table, of split '{own}'")
    return {own: stored}


def _where(path: str, subset: str | None, split: str) -> str:
    return f"dataset.path={path}: subset {subset or '(default)'}, split '{split}'"


def _hint(path: str) -> str:
    return ". To read single files use --set dataset.name=files" if Path(path).is_dir() else ""
