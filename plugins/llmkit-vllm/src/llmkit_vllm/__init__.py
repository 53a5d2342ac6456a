"""vLLM as servers that llmkit starts, in an environment of its own."""

from llmkit.config.section import all_defaults
from llmkit.config.servers import ServerEngineConfig
from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.inference.remote.deadlines import Deadlines
from llmkit_vllm.program import DEFAULT_LORA_RANK
from llmkit_vllm.program import PROGRAM as PROGRAM


class Config(ServerEngineConfig):
    """What vLLM can be told; `llmkit engines install vllm` makes its environment."""

    sync: WeightSyncConfig = all_defaults(WeightSyncConfig)
    """How the servers get the policy's weights."""
    deadlines: Deadlines = all_defaults(Deadlines)
    """How long each kind of waiting for a server may take."""


def build(config: Config, context: EngineContext) -> ServingEngine:
    """Start the servers, or find those that run already.

    Raises:
        ConfigError: a setting cannot be had; nothing was started.
        EngineError: a server did not start or does not answer.
    """
    from llmkit.engines.servers.assembly import build_engine
    from llmkit_vllm.dialect import VLLMDialect
    from llmkit_vllm.weights import VLLMReceiver

    # Servers that somebody else started have vLLM's default --logprobs-mode.
    dialect = VLLMDialect("raw" if config.urls else "processed")
    return build_engine(PROGRAM, config, context, dialect, VLLMReceiver(), default_rank=DEFAULT_LORA_RANK)
