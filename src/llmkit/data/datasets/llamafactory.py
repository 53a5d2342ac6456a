"""A data set of LLaMA-Factory, as its `dataset_info.json` describes it."""

from typing import TYPE_CHECKING

from pydantic import Field

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.data.contract import Dataset


class Config(Section):
    """Rows of one entry of a `dataset_info.json`, read by the columns and tags that stand there; the formatter of the
    run has nothing to do."""

    path: str
    """The directory with the `dataset_info.json`, or that file."""
    dataset: str
    """Name of the entry."""
    limit: int | None = Field(None, ge=1)
    """Most rows, from the start; unset reads all."""
    seed: int = 0
    """Chooses the rows of an entry with `num_samples`."""


def build(config: Config) -> "Dataset":
    """Read the entry and open its file, or its data set on the hub.

    Raises:
        DataError: the entry does not exist or cannot be understood; names file:line. Or its rows cannot be opened.
    """
    from llmkit.data.datasets.dataset_info import read_entry
    from llmkit.data.datasets.llamafactory_rows import open_entry

    return open_entry(read_entry(config.path, config.dataset), config.limit, config.seed)
