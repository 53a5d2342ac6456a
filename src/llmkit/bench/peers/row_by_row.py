"""Tokenizing as most trainers do it: `datasets.map`, a row at a time, with the tokenizer's own masks."""

import tempfile
from typing import Any

from .digests import digests
from .serving import Answer, serve, timed


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Open the rows and the tokenizer, which the timing leaves out."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_caching()  # else the second run would find what the first one made
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(settings["tokenizer"])
    rows = datasets.load_dataset(
        "json", data_files=settings["rows"], split="train", cache_dir=tempfile.mkdtemp(dir=settings["directory"])
    )
    made: list[Any] = []

    def tokenize(row: dict[str, Any]) -> dict[str, Any]:
        encoded = tokenizer.apply_chat_template(
            row["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return {"input_ids": encoded["input_ids"], "assistant_masks": encoded["assistant_masks"]}

    def run() -> Answer:
        seconds, mapped = timed(lambda: rows.map(tokenize))
        made[:] = [mapped]
        return {"seconds": seconds}

    def results() -> Answer:
        (mapped,) = made
        return digests((row["input_ids"], row["assistant_masks"]) for row in mapped)

    return {"run": run, "results": results}


def main() -> None:
    """Work until standard input ends."""
    serve(prepare)
