"""Which settings make a run smaller, and what they are good for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from llmkit.errors import OutOfMemory, Work
from llmkit.memory import asked_for, is_out_of_memory

Part = Literal["weights", "gradients", "optimizer", "activations", "logits", "kv_cache"]
EASED_BY: dict[Work, set[Part]] = {
    "loading": {"weights"},
    "forward": {"activations"},
    "head": {"logits"},
    "backward": {"activations", "gradients"},
    "optimizer": {"optimizer", "gradients"},
    "generation": {"kv_cache"},
    "other": {"activations", "weights", "optimizer"},
}
"""Which parts of a run's memory to make smaller, depending on what there was no room for."""


@dataclass(frozen=True)
class Change:
    """A change of settings that takes less memory.

    Attributes:
        settings: what to give `--set`.
        parts: what gets smaller.
        cost: what it costs, in words.
    """

    settings: tuple[str, ...]
    parts: frozenset[Part]
    cost: str

    def __str__(self) -> str:
        return f"{' '.join(f'--set {setting}' for setting in self.settings)} ({self.cost})"


def changes(run: Any) -> list[Change]:
    """What would make this run smaller, the cheapest first; nothing that it does already."""
    found: list[Change] = []

    def offer(parts: set[Part], cost: str, *settings: str) -> None:
        found.append(Change(settings, frozenset(parts), cost))

    full = run.adapter.name == "full"
    tokens = run.batch.tokens_per_micro_batch
    if tokens > 1:
        offer({"activations", "logits"}, "same result", f"batch.tokens_per_micro_batch={tokens // 2}")
    if hasattr(run, "sampling"):
        rows = getattr(run.engine, "max_batch_size", 1)
        if rows > 1:
            offer({"kv_cache"}, "same result, slower sampling", f"engine.max_batch_size={rows // 2}")
    if run.device.compute_dtype == "float32":
        offer({"activations", "kv_cache"}, "products in half the bits", "device.compute_dtype=bfloat16")
    if not run.device.gradient_checkpointing:
        offer({"activations"}, "same result, about a third slower", "device.gradient_checkpointing=true")
    if run.optim.optimizer.name == "adamw":
        offer({"optimizer"}, "needs bitsandbytes", "optim.optimizer=adamw_8bit")
    if run.optim.ema_decay:
        offer({"optimizer"}, "no averaged weights", "~optim.ema_decay")
    if full:
        offer({"gradients", "optimizer", "weights"}, "trains an adapter instead", "adapter.name=lora")
    if run.model.dtype == "float32":
        offer({"weights", "gradients", "optimizer"}, "small updates are rounded away", "model.dtype=bfloat16")
    if run.model.quantization == "none":
        settings = ("model.quantization=bnb_4bit", *(["adapter.name=lora"] if full else []))
        offer({"weights", "gradients", "optimizer"}, "base model in 4 bits, needs bitsandbytes", *settings)
    if hasattr(run, "sampling"):
        if run.sampling.max_new_tokens > 1:
            shorter = f"sampling.max_new_tokens={run.sampling.max_new_tokens // 2}"
            offer({"kv_cache", "activations"}, "shorter completions", shorter)
    elif run.data.max_length > 2:
        shorter = (f"data.max_length={run.data.max_length // 2}", "data.overlength=truncate_right")
        offer({"activations", "logits"}, "cuts long rows", *shorter)
    return found


def advice(run: Any, work: Work, most: int = 4) -> str:
    """What to change when there was no room for `work`."""
    wanted = EASED_BY[work]
    fitting = [str(change) for change in changes(run) if change.parts & wanted][:most]
    return f"What takes less: {'; '.join(fitting)}. --dry-run tells how much each would save"


@contextmanager
def advising(run: Any) -> Iterator[None]:
    """Let a lack of memory within the block end with what to change in `run`."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        shortage = error if isinstance(error, OutOfMemory) else OutOfMemory("other", f"this run{asked_for(error)}")
        shortage.advice = advice(run, shortage.work)
        if shortage is error:
            raise
        raise shortage from error
