"""The adapter of a run, told what the run knows; what the two cannot do together is refused before anything loads."""

from collections.abc import Callable, Sequence

from llmkit import plugins
from llmkit.adapters.contract import Adapter, AdapterContext
from llmkit.config.runs import DPORun, GRPORun, SFTRun
from llmkit.errors import ConfigError
from llmkit.models.loading import lasting_name, load_model, new_tokens
from llmkit.types import Batch


def begin_adapter(
    run: SFTRun | DPORun | GRPORun, total_steps: int, draw_batches: Callable[[int], Sequence[Batch]] | None
) -> Adapter:
    """The run's adapter.

    Args:
        total_steps: of the run, each of which may be several optimizer steps.
        draw_batches: draws that many batches of training rows; None where rows have no answers yet.

    Raises:
        ConfigError: the adapter cannot work in this run.
    """
    adapter: Adapter = plugins.load("adapters", run.adapter.name).build(run.adapter)
    samples_answers = isinstance(run, GRPORun)
    if samples_answers and adapter.facts.one_by_one:
        raise ConfigError(
            f"adapter.name={run.adapter.name}: engines that sample answers cannot use this adapter, so it trains with "
            "sft and dpo alone; use adapter.name=lora"
        )
    if not samples_answers and adapter.facts.one_by_one and run.eval.generate.reward is not None:
        raise ConfigError(
            f"adapter.name={run.adapter.name}: engines that sample answers cannot use this adapter; leave "
            "eval.generate.reward unset, or use adapter.name=lora"
        )
    if adapter.facts.is_random and not isinstance(run, SFTRun):
        raise ConfigError(
            f"adapter.name={run.adapter.name} draws numbers in every training pass, with its module_dropout or "
            "rank_dropout or by itself, and this algorithm compares two passes; leave them 0, or use adapter.name=lora"
        )
    tokens = new_tokens(run.model)
    adapter.begin(
        AdapterContext(
            base_model=lasting_name(run.model),
            revision=run.model.revision,
            total_steps=total_steps * (run.algorithm.updates_per_step if isinstance(run, GRPORun) else 1),
            draw_batches=None if samples_answers else draw_batches,
            quantization=run.model.quantization,
            load_whole=lambda: load_model(run.model.model_copy(update={"quantization": "none"})),
            new_tokens=tokens,
            pads_vocabulary=run.model.pad_vocab_to_multiple_of is not None,
        )
    )
    if tokens and not adapter.facts.trains_new_tokens:
        raise ConfigError(
            f"adapter.name={run.adapter.name} would leave the tokens that model.add_tokens adds untrained; use "
            "adapter.name=lora, which trains them too, or full"
        )
    return adapter
