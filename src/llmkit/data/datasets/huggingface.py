"""A data set of the Hugging Face hub, a copy of one, or a directory that `datasets` wrote with `save_to_disk`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.data.contract import Dataset, Stream

logger = logging.getLogger(__name__)


class Config(Section):
    """Rows of a data set in Hugging Face's own form."""

    path: str
    """Name on the hub (`openai/gsm8k`), a directory of `save_to_disk`, a directory laid out as a hub repository, or
    with `data_files` a type of files (`json`, `csv`, `parquet`, `arrow`, `text`)."""
    subset: str | None = None
    """Which part of a set that has several; its page on the hub calls it subset or configuration."""
    split: str = "train"
    """Which split; also a part (`train[:10%]`), or several (`train+test`)."""
    revision: str | None = None
    """Branch, tag or commit on the hub; unset is the newest."""
    data_files: str | list[str] | None = None
    """Names or patterns of the files to take; unset takes what the set itself says."""
    streaming: bool = False
    """Read from front to back, from the hub without downloading first; rows are then shuffled in blocks."""
    limit: int | None = Field(None, ge=1)
    """Most rows, from the start; unset reads all."""


def build(config: Config) -> "Dataset | Stream":
    """Load the directory, or download from the hub (or its cache).

    Raises:
        DataError: there is no such set, subset or split, or the hub cannot be reached.
    """
    from llmkit.data.hub import local, remote

    path = Path(config.path).expanduser()
    if local.is_saved(path):
        _warn_unused(config, "subset", "revision", "data_files")
        from_disk = local.stream_from_disk if config.streaming else local.load_from_disk
        return from_disk(path, config.split, limit=config.limit)
    if path.is_dir() or (config.data_files is not None and config.path in local.FILE_BUILDERS):
        _warn_unused(config, "revision")
        name = str(path) if path.is_dir() else config.path
        of_files = local.stream_files if config.streaming else local.load_files
        return of_files(name, config.subset, config.split, data_files=config.data_files, limit=config.limit)
    from_hub = remote.stream_from_hub if config.streaming else remote.load_from_hub
    return from_hub(
        config.path,
        config.subset,
        config.split,
        revision=config.revision,
        limit=config.limit,
        data_files=config.data_files,
    )


def _warn_unused(config: Config, *names: str) -> None:
    for name in names:
        if getattr(config, name) is not None:
            logger.warning("dataset.%s has no effect: %s is on this machine", name, config.path)
