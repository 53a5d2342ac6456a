"""Tokenizing by TRL's own code: what `SFTTrainer` does with a data set before it trains."""

import tempfile
from typing import Any

from .digests import digests
from .serving import Answer, serve, timed


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Open the rows, the tokenizer and as much of a trainer as preparing rows takes; the timing leaves it out."""
    import datasets
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports] - in an environment of its own

    datasets.disable_caching()  # else the second run would find what the first one made
    datasets.disable_progress_bars()
    directory = tempfile.mkdtemp(dir=settings["directory"])
    tokenizer = AutoTokenizer.from_pretrained(settings["tokenizer"])
    rows = datasets.load_dataset("json", data_files=settings["rows"], split="train", cache_dir=directory)
    arguments = SFTConfig(
        output_dir=directory,
        assistant_only_loss=True,
        max_length=settings["max_length"],
        shuffle_dataset=False,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    # A whole trainer wants a model; the rows do not.
    trainer: Any = SFTTrainer.__new__(SFTTrainer)
    trainer._tokenizer = tokenizer
    trainer.chat_template = None  # the tokenizer's own, which marks the answers
    trainer.completion_only_loss = False
    made: list[Any] = []

    def run() -> Answer:
        seconds, prepared = timed(lambda: trainer._prepare_dataset(rows, tokenizer, arguments, False, None, "train"))
        made[:] = [prepared]
        return {"seconds": seconds}

    def results() -> Answer:
        (prepared,) = made
        return digests((row["input_ids"], [int(label != -100) for label in row["labels"]]) for row in prepared)

    return {"run": run, "results": results}


def main() -> None:
    """Work until standard input ends."""
    serve(prepare)
