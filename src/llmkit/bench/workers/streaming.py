"""One pass over a stream, with the memory that it takes along the way."""

from typing import Any

from llmkit.bench.machine import held_memory_bytes
from llmkit.bench.peers.serving import Answer, serve, timed
from llmkit.machine import peak_memory_bytes

SAMPLES = 200
ROWS_PER_STEP = 16


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Open the stream; `num_rows` of the settings says how many rows it has."""
    from llmkit.bench.workers.opening import open_rows
    from llmkit.config.schema import BatchConfig
    from llmkit.data.loading.stream_loader import StreamLoader
    from llmkit.data.row_errors import RowErrors

    opened = open_rows(settings, cache=False, streaming=True)
    config = opened.config
    loader = StreamLoader(
        opened.dataset,
        opened.formatter,
        opened.encoder,
        BatchConfig.model_validate({"rows_per_step": ROWS_PER_STEP}),
        seed=0,
        shuffle=True,
        shuffle_block=config.shuffle_block,
        max_length=config.max_length,
        errors=RowErrors(config.on_error, config.max_skipped),
        num_workers=0,
    )
    num_steps = max(1, settings["num_rows"] // ROWS_PER_STEP)
    every = max(1, num_steps // SAMPLES)
    held: list[int] = []

    def read_all() -> None:
        for step in range(num_steps):
            loader.next_step()
            if step % every == 0 and (now := held_memory_bytes()) is not None:
                held.append(now)

    def run() -> Answer:
        seconds = timed(read_all)[0]
        loader.close()
        return {
            "seconds": seconds,
            "num_rows": loader.counts.rows,
            "num_tokens": loader.counts.tokens,
            "shuffle_block": config.shuffle_block,
            "memory_bytes": held,
            "peak_memory_bytes": peak_memory_bytes(),
        }

    return {"run": run}


if __name__ == "__main__":
    serve(prepare)
