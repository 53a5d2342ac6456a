"""vLLM-Ascend: vLLM's server with Ascend's plugin, on NPUs."""

from dataclasses import replace

from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.servers.synced import SyncedConfig, open_engine
from llmkit_vllm.program import DEFAULT_LORA_RANK
from llmkit_vllm.program import PROGRAM as VLLM

PROGRAM = replace(
    VLLM,
    name="vllm_ascend",
    title="vLLM-Ascend",
    module="vllm_ascend",
    package="vllm-ascend",
    devices=("npu",),
    recipes={},
    how_to_install="Install vllm-ascend in an environment with Ascend's CANN and torch_npu",
    seen_running="",
)


class Config(SyncedConfig):
    """What vLLM-Ascend can be told: the same as vLLM."""


def build(config: Config, context: EngineContext) -> ServingEngine:
    """Start the servers, or find those that run already.

    Raises:
        ConfigError: a setting cannot be had; nothing was started.
        EngineError: a server did not start or does not answer.
    """
    from llmkit.engines.servers.synced import logprobs_of
    from llmkit_vllm.dialect import VLLMDialect
    from llmkit_vllm.weights import VLLMReceiver

    dialect = VLLMDialect(logprobs_of(config, context))
    return open_engine(PROGRAM, config, context, dialect, VLLMReceiver(), default_lora_rank=DEFAULT_LORA_RANK)
