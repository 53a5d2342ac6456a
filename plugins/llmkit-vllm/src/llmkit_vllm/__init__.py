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
    from llmkit.engines.inference.remote.engine import RemoteEngine
    from llmkit.engines.inference.weight_sync.opening import open_weight_sync
    from llmkit.engines.servers.opening import open_fleet
    from llmkit_vllm.dialect import VLLMDialect
    from llmkit_vllm.weights import VLLMReceiver

    # Servers that somebody else started have vLLM's default --logprobs-mode.
    dialect, rank, sync = VLLMDialect("raw" if config.urls else "processed"), None, None
    if config.max_loras:
        rank = config.max_lora_rank or DEFAULT_LORA_RANK
    if context.policy is not None:
        sync = open_weight_sync(config.sync, context.policy, dialect, VLLMReceiver(), max_lora_rank=rank)
    fleet = open_fleet(PROGRAM, config, context)
    try:
        return RemoteEngine(fleet, dialect, tokenizer=context.tokenizer, sync=sync, deadlines=config.deadlines)
    except BaseException:
        fleet.close()
        raise
