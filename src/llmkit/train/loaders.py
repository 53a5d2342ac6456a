"""What a run draws its steps from."""

from typing import TypeVar

from llmkit.config.runs import DPORun, GRPORun, SFTRun
from llmkit.config.schema import BatchConfig
from llmkit.data.contract import Encoder, Ordered, Sized
from llmkit.data.loading.loader import Loader, load_prepared, load_rows
from llmkit.data.loading.stream_loader import StreamLoader
from llmkit.data.preparing.prepared import prepare
from llmkit.distributed.world import world
from llmkit.terminal import note
from llmkit.train.inputs import Inputs
from llmkit.types import Record

T = TypeVar("T")


def open_samples(inputs: Inputs, encoder: Encoder[T], run: SFTRun | DPORun) -> Loader[T]:
    """Samples or pairs: of a data set tokenized before the first step, of a stream while it is read.

    Raises:
        DataError: a row cannot be used, or none is left.
    """
    if not isinstance(inputs.data, Sized):
        return open_stream(inputs, encoder, run, run.batch, rank=world().data_rank, world_size=world().data_size)
    prepared = prepare(inputs.data, inputs.formatter, encoder, run.data, errors=inputs.errors)
    if changed := prepared.counts.told():
        note(f"{prepared.counts.rows:,} rows: {changed}")
    return load_prepared(
        prepared,
        run.batch,
        seed=run.seed,
        shuffle=run.data.shuffle,
        max_length=inputs.max_length * (2 if isinstance(run, DPORun) else 1),
        order=inputs.data.order if isinstance(inputs.data, Ordered) else None,
        rank=world().data_rank,
        world_size=world().data_size,
    )


def open_prompts(inputs: Inputs, encoder: Encoder[Record], run: GRPORun) -> Loader[Record]:
    """Prompts, encoded when they are drawn; every process gets those of all.

    Raises:
        DataError: there are no rows.
    """
    if not isinstance(inputs.data, Sized):
        return open_stream(
            inputs, encoder, run, BatchConfig.model_validate({"rows_per_step": run.batch.prompts_per_step})
        )
    return load_rows(
        inputs.data,
        inputs.formatter,
        encoder,
        rows_per_step=run.batch.prompts_per_step,
        seed=run.seed,
        shuffle=run.data.shuffle,
        errors=inputs.errors,
        num_workers=run.data.num_workers,
    )


def open_stream(
    inputs: Inputs,
    encoder: Encoder[T],
    run: SFTRun | DPORun | GRPORun,
    batch: BatchConfig,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> StreamLoader[T]:
    """What a stream gives."""
    assert not isinstance(inputs.data, Sized)
    return StreamLoader(
        inputs.data,
        inputs.formatter,
        encoder,
        batch,
        seed=run.seed,
        shuffle=run.data.shuffle,
        shuffle_block=run.data.shuffle_block,
        max_length=inputs.max_length,
        errors=inputs.errors,
        num_workers=run.data.num_workers,
        rank=rank,
        world_size=world_size,
    )
