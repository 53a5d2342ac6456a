"""Which files hold the data: files by name, those of a directory, or those that a pattern fits."""

import logging
import re
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from llmkit.data.files.compression import SUFFIXES as COMPRESSIONS
from llmkit.data.files.file_types import KNOWN, DataFile, FileType
from llmkit.errors import DataError

SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
}
"""Words of a file name that name a split, and the split they mean."""
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "package.json")
"""Files that describe data or something else and hold no rows."""
ABOUT = re.compile(r"(readme|license|licence|notice|changelog|citation)\b", re.IGNORECASE)
"""Names of texts about the data."""

logger = logging.getLogger(__name__)


def find_files(path: str | Sequence[str], split: str | None, file_type: FileType | None = None) -> list[DataFile]:
    """The data files that a path means, in order of their names; of several paths, in the order of the paths.

    Args:
        path: a file, a directory of files of one type, a pattern with `*`, `?`, `[...]` or `**` for any depth of
            directories; or several of them. `~` is the home directory.
        split: which files to take, by their names; None takes all that a pattern fits, and of a directory `train`, or
            all when no name speaks of a split.
        file_type: how to read them, whatever their names end in.
    Raises:
        DataError: nothing is there, nothing that llmkit reads, files of several types, or no such split.
    """
    paths = [path] if isinstance(path, str) else list(path)
    if not paths:
        raise DataError("dataset.path=[]: name at least one file")
    return [file for one in paths for file in _of_one_path(Path(one).expanduser(), split, file_type)]


def _of_one_path(path: Path, split: str | None, file_type: FileType | None) -> list[DataFile]:
    if path.is_dir():
        return _of_split(path, _of_directory(path, file_type), split)
    if path.exists():
        found = DataFile.of(path, file_type)
        if found is None:
            raise DataError(
                f"{path}: a '{path.suffix}' file is not read by its name; llmkit reads {KNOWN}. If it is one of these, "
                "say which: --set dataset.file_type=jsonl"
            )
        if split is not None:
            logger.warning("dataset.split=%s has no effect: %s is one file", split, path)
        return [found]
    if path.is_symlink():
        raise DataError(f"{path}: a link to {path.readlink()}, which is not there")
    if not has_magic(str(path)):
        raise DataError(f"{path}: no such file or directory")
    matches = sorted(Path(match) for match in glob(str(path), recursive=True))
    files = _of_one_type(path, [match for match in matches if not match.is_dir()], file_type)
    if not files:
        raise DataError(f"{path}: no data file fits this pattern; llmkit reads {KNOWN}")
    return files if split is None else _of_split(path, files, split)


def _of_directory(directory: Path, file_type: FileType | None) -> list[DataFile]:
    if (directory / "state.json").is_file() or (directory / "dataset_dict.json").is_file():
        raise DataError(
            f"{directory}: this directory was written by `save_to_disk`; read it with --set dataset.name=huggingface"
        )
    try:
        inside = sorted(directory.iterdir())
    except OSError as error:
        raise DataError(f"{directory}: cannot be read: {error.strerror or error}") from None
    files = _of_one_type(directory, [path for path in inside if not path.is_dir()], file_type)
    if not files:
        deeper = [path.name for path in inside if path.is_dir() and not path.name.startswith(".")]
        hint = f" It has the directories {', '.join(deeper[:5])}: name one, or {directory}/**/*.jsonl" if deeper else ""
        raise DataError(f"{directory}: no data in this directory; llmkit reads {KNOWN}.{hint}")
    return files


def _of_one_type(place: Path, paths: Sequence[Path], file_type: FileType | None) -> list[DataFile]:
    """The data files among `paths`, which must be of one type."""
    files = [
        file
        for path in paths
        if not path.name.startswith(".") and path.name not in DESCRIPTIONS and not ABOUT.match(path.name)
        if (file := DataFile.of(path, file_type))
    ]
    first_of_type = {file.type: file.path.name for file in reversed(files)}
    if len(first_of_type) > 1:
        counts = ", ".join(
            f"{sum(file.type == one for file in files)} {one} ({first_of_type[one]}, ...)" for one in first_of_type
        )
        pattern = (place if place.is_dir() else place.parent) / f"*{_extension(files[0].path)}"
        raise DataError(
            f"{place}: files of {len(first_of_type)} types: {counts}; name those of one type: "
            f"--set 'dataset.path={pattern}'"
        )
    return files


def _extension(path: Path) -> str:
    return "".join(path.suffixes[-2:]) if path.suffix.lower() in COMPRESSIONS else path.suffix


def _of_split(place: Path, files: list[DataFile], split: str | None) -> list[DataFile]:
    splits = {file: split_of(file.path) for file in files}
    named = sorted({name for name in splits.values() if name})
    if split is None:
        if not named:
            return files
        split = "train"
    wanted = SPLITS.get(split, split)
    chosen = [file for file in files if splits[file] == wanted or file.path.name.split(".")[0] == split]
    if not chosen:
        there = ", ".join(named) if named else "none, for no file name says train, test or validation"
        raise DataError(f"{place}: no file of split '{split}'; splits here: {there}")
    return chosen


def split_of(file: Path) -> str | None:
    """The split that a file's name speaks of: `train-00000-of-00002.parquet` is `train`."""
    words = re.split(r"[^a-z]+", file.name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), None)
