"""Tokenizing as llmkit does it."""

from functools import partial
from itertools import islice
from typing import Any

from llmkit.bench.peers.digests import digests
from llmkit.bench.peers.serving import Answer, serve, timed

CHUNK = 64
"""Records that the encoder is given at a time, as the data layer does."""


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Open the rows, the tokenizer and their plugins, which the timing leaves out."""
    from llmkit.bench.workers.opening import open_rows
    from llmkit.data.contract import to_record
    from llmkit.data.preparing.encode_pool import encode_rows
    from llmkit.data.preparing.prepared import prepare as prepare_rows

    opened = open_rows(settings, cache=False)
    dataset, formatter, encoder = opened.dataset, opened.formatter, opened.encoder
    records = [to_record(dataset[index], formatter) for index in range(len(dataset))]

    def encode() -> list[Any]:
        left = iter(records)
        return [item for chunk in iter(lambda: list(islice(left, CHUNK)), []) for item in encoder(chunk)]

    def from_file() -> list[Any]:
        rows = (dataset[index] for index in range(len(dataset)))
        return list(encode_rows(rows, formatter, encoder, num_workers=0, chunk_rows=CHUNK))

    def to_cache() -> Any:
        return prepare_rows(dataset, formatter, encoder, opened.config)

    def results() -> Answer:
        made = to_cache()
        samples = (made[index] for index in range(len(made)))
        return digests((one.token_ids, [int(weight > 0) for weight in one.loss_weights]) for one in samples)

    def run(work: Any) -> Answer:
        return {"seconds": timed(work)[0]}

    return {
        "encode": partial(run, encode),
        "format": partial(run, from_file),
        "prepare": partial(run, to_cache),
        "results": results,
    }


if __name__ == "__main__":
    serve(prepare)
