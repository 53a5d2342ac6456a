"""A data set of the Hugging Face hub, or a directory that `datasets` wrote with `save_to_disk`."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.data.contract import Dataset


class Config(Section):
    """Rows of a data set in Hugging Face's own form."""

    path: str
    """Name on the hub (`openai/gsm8k`), or a `save_to_disk` directory."""
    subset: str | None = None
    """Which part of a set that has several; its page on the hub calls it subset or configuration."""
    split: str = "train"
    """Which split."""
    revision: str | None = None
    """Branch, tag or commit on the hub; unset is the newest."""
    limit: int | None = Field(None, ge=1)
    """Most rows, from the start; unset reads all."""


def build(config: Config) -> "Dataset":
    """Load the directory, or download from the hub (or its cache).

    Raises:
        DataError: there is no such set, subset or split, or the hub cannot be reached.
    """
    from llmkit.data.hub import load_from_disk, load_from_hub

    path = Path(config.path).expanduser()
    if path.is_dir():
        return load_from_disk(path, config.split, limit=config.limit)
    return load_from_hub(config.path, config.subset, config.split, revision=config.revision, limit=config.limit)
