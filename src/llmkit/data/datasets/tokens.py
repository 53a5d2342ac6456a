"""Corpora that were tokenized before, as they are stored or cut into windows for pre-training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from llmkit.config.section import PluginKind, PluginSection, Section

if TYPE_CHECKING:
    from llmkit.data.contract import Dataset

ONLY_WITH_WINDOW = ("stride", "eos_token_id", "drop_last", "train_overlap")


class Config(Section):
    """Token sequences of a file, or of a directory whose files count as one list."""

    path: str
    """A file, or a directory of files of one store."""
    store: Annotated[PluginSection | None, PluginKind("stores")] = None
    """What reads the files, with its options; unset goes by the end of their names."""
    window: int | None = Field(None, ge=2)
    """Tokens of a row, cut from all sequences laid end to end; unset makes a row of each sequence."""
    stride: int | None = Field(None, ge=1)
    """Tokens from the start of a window to that of the next; unset is `window`. Less makes windows overlap. The first
    token of a window has none before it and is not trained, so `window - 1` trains every token but the very first
    exactly once."""
    train_overlap: bool = False
    """Train the tokens that a window shares with the one before it a second time."""
    eos_token_id: int | None = Field(None, ge=0)
    """Token to put behind every sequence before windows are cut; unset puts none."""
    drop_last: bool = False
    """Leave out the last window when it is not full."""
    limit: int | None = Field(None, ge=1)
    """Most rows, from the start; unset reads all."""

    @model_validator(mode="after")
    def _options_fit_together(self) -> Self:
        given = [
            name for name in ONLY_WITH_WINDOW if getattr(self, name) is not None and getattr(self, name) is not False
        ]
        if given and self.window is None:
            raise ValueError(f"{given[0]} is for windows; set window too")
        if self.stride is not None and self.window is not None and self.stride > self.window:
            raise ValueError(f"stride ({self.stride}) is greater than window ({self.window}): tokens would be left out")
        return self


def build(config: Config) -> "Dataset":
    """Open the files.

    Raises:
        DataError: a file is missing or damaged, or no store reads it.
    """
    from llmkit.data.datasets.token_rows import Cut, SequenceRows, WindowRows
    from llmkit.data.stores.segments import open_sequences

    sequences = open_sequences(Path(config.path).expanduser(), config.store)
    # As any: the store's own options are part of what decides the rows.
    options = config.model_dump(mode="json", exclude={"path"}, serialize_as_any=True)
    if config.window is None:
        return SequenceRows(sequences, options, config.limit)
    cut = Cut(
        config.window, config.stride or config.window, config.train_overlap, config.eos_token_id, config.drop_last
    )
    return WindowRows(sequences, cut, options, config.limit)
