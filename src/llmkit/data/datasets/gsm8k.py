"""GSM8K: 8,792 grade-school word problems with worked answers, from the hub or a local directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.data.contract import Dataset


class Config(Section):
    """Rows with `question` and `answer`; the answer ends in `#### N`. arXiv:2110.14168."""

    path: str = "openai/gsm8k"
    """Name on the Hugging Face hub, or a local directory with `train.jsonl` and `test.jsonl` (or Parquet files)."""
    split: Literal["train", "test"] = "train"
    """7,473 problems to train on, or 1,319 to test with."""
    limit: int | None = Field(None, ge=1)
    """Most rows, from the start; unset reads all."""


def build(config: Config) -> "Dataset":
    """Open the local directory, or load the set from the hub.

    Raises:
        DataError: the directory has no such split, or the hub cannot be reached.
    """
    directory = Path(config.path).expanduser()
    if directory.exists():
        from llmkit.data.files.reading import open_path

        if directory.is_file():
            return open_path(config.path, None, config.limit)
        # A copy of the hub's repository keeps the set in `main`, beside another form of it in `socratic`.
        inner = directory / "main"
        return open_path(str(inner if inner.is_dir() else directory), config.split, config.limit)
    from llmkit.data.hub.remote import load_from_hub

    return load_from_hub(config.path, "main", config.split, revision=None, limit=config.limit)
