"""vLLM as servers that llmkit starts, in an environment of its own."""

from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.servers.synced import SyncedConfig, open_engine
from llmkit_vllm.program import DEFAULT_LORA_RANK
from llmkit_vllm.program import PROGRAM as PROGRAM


class Config(SyncedConfig):
    """What vLLM can be told; `llmkit engines install vllm` makes its environment."""


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
