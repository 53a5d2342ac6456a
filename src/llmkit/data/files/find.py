"""Which files hold the data: one file, or those of a directory that belong to a split."""

import logging
import re
from pathlib import Path

from llmkit.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
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

logger = logging.getLogger(__name__)


def find_files(path: Path, split: str | None) -> list[Path]:
    """Data files under `path`, in order of their names.

    Args:
        path: a file, or a directory of files of one type.
        split: which files of a directory to take; None takes `train`, or all when no name speaks of a split.
    Raises:
        DataError: nothing is at `path`, nothing that llmkit reads, files of several types, or no such split.
    """
    if path.is_dir():
        return _of_split(path, _of_one_type(path), split)
    if not path.exists():
        raise DataError(f"{path}: no such file or directory")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: a '{path.suffix}' file is not read; llmkit reads {', '.join(SUFFIXES)}")
    if split is not None:
        logger.warning("dataset.split=%s has no effect: %s is one file", split, path)
    return [path]


def _of_one_type(directory: Path) -> list[Path]:
    if (directory / "state.json").is_file() or (directory / "dataset_dict.json").is_file():
        raise DataError(
            f"{directory}: this directory was written by `save_to_disk`; read it with --set dataset.name=huggingface"
        )
    files = sorted(
        file
        for file in directory.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.name not in DESCRIPTIONS
    )
    if not files:
        raise DataError(f"{directory}: no data in this directory; llmkit reads {', '.join(SUFFIXES)}")
    first_of_type = {file.suffix.lower(): file.name for file in reversed(files)}
    if len(first_of_type) > 1:
        found = ", ".join(first_of_type[suffix] for suffix in sorted(first_of_type))
        raise DataError(
            f"{directory}: files of {len(first_of_type)} types ({found}, ...); name one file, or keep one type"
        )
    return files


def _of_split(directory: Path, files: list[Path], split: str | None) -> list[Path]:
    splits = {file: split_of(file) for file in files}
    named = sorted({name for name in splits.values() if name})
    if split is None:
        if not named:
            return files
        split = "train"
    wanted = SPLITS.get(split, split)
    chosen = [file for file in files if splits[file] == wanted or file.stem == split]
    if not chosen:
        there = ", ".join(named) if named else "none, for no file name says train, test or validation"
        raise DataError(f"{directory}: no file of split '{split}'; splits here: {there}")
    return chosen


def split_of(file: Path) -> str | None:
    """The split that a file's name speaks of: `train-00000-of-00002.parquet` is `train`."""
    words = re.split(r"[^a-z]+", file.stem.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), None)
