"""What training draws from: items of the next step, this process's share of them, resumable to the item."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from llmkit.config.schema import BatchConfig
from llmkit.data.contract import Dataset, Encoder, Formatter
from llmkit.data.counts import RowCounts
from llmkit.data.loading.drawing import RowOrder
from llmkit.data.loading.prepared_loader import Items, PreparedLoader
from llmkit.data.loading.row_loader import RowLoader
from llmkit.data.row_errors import RowErrors

T = TypeVar("T")


class Loader(Protocol[T]):
    """Hands out optimizer steps of samples, pairs or prompts.

    Every process of a run draws the same steps and takes its share of each, so a state that one world size saved
    resumes under another, with the same items in the same steps.
    """

    @property
    def num_rows(self) -> int | None:
        """Rows of the data set; None when it is a stream."""
        ...

    @property
    def epoch(self) -> float:
        """Epochs passed, with the share of the present one."""
        ...

    @property
    def counts(self) -> RowCounts:
        """What became of the rows: of all, when they were tokenized before training, else of those handed out."""
        ...

    def next_step(self) -> list[T]:
        """This rank's share of the next step's items; ranks may differ by one item, and a share may be empty.

        Raises:
            DataError: a row cannot be used, or nothing is left to train on.
        """
        ...

    def num_steps(self, num_epochs: float) -> int:
        """Steps from the first until `num_epochs` epochs have passed, with the step that crosses their end.

        Raises:
            ConfigError: the data is a stream, whose epochs have no known length.
        """
        ...

    def read_all(self, limit: int | None = None) -> list[T]:
        """What is trained of the first `limit` rows (None: of all) in their order; the position stays where it is."""
        ...

    def first(self, count: int) -> list[T]:
        """The first `count` items in the order of the rows; neither position nor counts change."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as JSON can hold it."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the last step of the run that the state is of.

        Raises:
            CheckpointError: the state belongs to other data or another order.
        """
        ...

    def close(self) -> None:
        """End processes and close files; safe to call twice."""
        ...


def load_prepared(
    prepared: Items[T],
    batch: BatchConfig,
    *,
    seed: int,
    shuffle: bool,
    max_length: int,
    order: RowOrder | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Loader[T]:
    """A loader of items that were tokenized before: any packing, and nothing to wait for.

    Args:
        prepared: the items.
        batch: how many make a step, and which come together.
        seed: fixes the order of every epoch, from 0.
        shuffle: a new random order each epoch.
        max_length: most tokens of an item; the default of `batch.pack_length`.
        order: `order` of a data set that is `Ordered`, such as a mixture; None takes every item once an epoch.
        rank: of this process, from 0.
        world_size: processes that share each step.
    Raises:
        DataError: there is no item.
    """
    batch = batch.model_copy(update={"pack_length": batch.pack_length or max_length})
    return PreparedLoader(prepared, batch, seed=seed, shuffle=shuffle, order=order, rank=rank, world_size=world_size)


def load_rows(
    dataset: Dataset,
    formatter: Formatter,
    encoder: Encoder[T],
    *,
    rows_per_step: int,
    seed: int,
    shuffle: bool,
    errors: RowErrors,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
) -> Loader[T]:
    """A loader that encodes rows when they are drawn; rows that are left out are replaced by the rows after them.

    Args:
        dataset: the rows; one that is `Ordered`, such as a mixture, decides the order of each epoch.
        formatter: reads them; one that chooses by the rows does so now.
        encoder: makes of records what is trained.
        rows_per_step: items of a step.
        seed: fixes the order of every epoch, from 0.
        shuffle: a new random order each epoch.
        errors: what happens to faulty rows.
        num_workers: processes that encode; 0 does it in this one.
        rank: of this process, from 0. Each process encodes the whole step, since it cannot know otherwise what is left
            out of it.
        world_size: processes that share each step.
    Raises:
        DataError: there are no rows, no formatter fits, or several do.
    """
    return RowLoader(
        dataset,
        formatter,
        encoder,
        rows_per_step=rows_per_step,
        seed=seed,
        shuffle=shuffle,
        errors=errors,
        num_workers=num_workers,
        rank=rank,
        world_size=world_size,
    )
