"""In this process, over the trainer's own parameters: no copy, no weight transfer."""

from typing import Annotated, Literal

from pydantic import Field

from llmkit.config.section import Nonsemantic, Section
from llmkit.engines.inference.contract import EngineContext, ServingEngine


class Config(Section):
    """Continuous batching with any Hugging Face causal language model."""

    runner: Literal["auto", "cuda", "packed", "sequence", "cpu"] = "auto"
    """What executes the model: `cpu` compiled code for the Llama and Qwen family; `cuda` the model's own modules with
    Triton kernels over a paged cache; `packed` the same without kernels, on any device; `sequence` one sequence after
    another, which any architecture can; `auto` the fastest that can."""
    cuda_graphs: bool = True
    """On a GPU, record steps that draw tokens as CUDA graphs and replay them; not for steps with adapters."""
    copy_weights: Annotated[bool | None, Nonsemantic] = None
    """Whether compiled code keeps the matrices a second time, in the order in which it reads them: a quarter to a half
    faster, and new weights are copied once. Unset does so where a quarter of the free memory holds them."""
    max_batch_size: int = Field(256, ge=1)
    """Most completions drawn side by side; more wait their turn."""
    max_step_tokens: int = Field(1024, ge=16)
    """Most tokens that go through the model together; longer prompts are divided, between other requests' tokens."""
    num_blocks: int | None = Field(None, ge=2)
    """Blocks of 16 tokens in the cache of keys and values; unset takes what `cache_memory_gb` holds."""
    cache_memory_gb: float | None = Field(None, gt=0)
    """Gigabytes for the cache; unset takes a share of what is free: most of a GPU's memory, little of a computer's,
    and beside training no more than the completions of a step can fill."""
    prefix_cache: bool = True
    """Keep the beginnings of prompts for requests that begin alike; new weights make them void."""
    weight_update: Literal["recompute", "keep"] = "recompute"
    """What running completions do at new weights: compute their cache again with them, or go on over the old one."""
    max_waiting: Annotated[int, Nonsemantic] = Field(4096, ge=1)
    """Completions that may wait for their turn behind a server; more are refused as busy."""
    aging_seconds: Annotated[float, Nonsemantic] = Field(10.0, gt=0)
    """Waiting this long makes up for one step of priority."""


def build(config: Config, context: EngineContext) -> ServingEngine:
    """Start the engine on the policy in training, or load the model when there is none.

    Raises:
        ConfigError: the chosen runner cannot execute the model, or there is no memory for the cache.
        ModelError: the model cannot be loaded.
    """
    from llmkit.engines.inference.native.choosing import choose, end_tokens
    from llmkit.engines.inference.native.engine import NativeEngine
    from llmkit.engines.inference.native.terms import Terms
    from llmkit.engines.inference.sampling.context import SamplingContext
    from llmkit.models.policy import load_policy

    policy = context.policy if context.policy is not None else load_policy(context.model, context.device)
    terms = Terms(config.max_waiting, config.aging_seconds, config.weight_update == "recompute")
    sampling = SamplingContext(
        vocab_size=policy.model.get_output_embeddings().weight.shape[0],
        eos_token_ids=end_tokens(policy, context.tokenizer),
        tokenizer=context.tokenizer,
        device=policy.device,
    )
    return NativeEngine(
        choose(policy, config, context.demand), sampling, context_length=policy.context_length, terms=terms
    )
