"""A training run's start up to its first batch."""

import time
from typing import Any

from llmkit.bench.peers.serving import serve


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Start, and take the time after each stage."""
    from llmkit.bench.workers.opening import open_rows
    from llmkit.config.schema import BatchConfig
    from llmkit.data.collate import micro_batches
    from llmkit.data.loading.loader import load_prepared
    from llmkit.data.preparing.prepared import prepare as prepare_rows

    marks = {"imported": time.time()}
    opened = open_rows(settings, cache=True)
    prepared = prepare_rows(opened.dataset, opened.formatter, opened.encoder, opened.config)
    marks["opened"] = time.time()
    batch = BatchConfig.model_validate({"rows_per_step": settings["rows_per_step"]})
    loader = load_prepared(prepared, batch, seed=0, shuffle=True, max_length=opened.config.max_length)
    micro_batches(loader.next_step(), batch.tokens_per_micro_batch)
    marks["batched"] = time.time()
    return {"marks": lambda: marks}


if __name__ == "__main__":
    serve(prepare)
