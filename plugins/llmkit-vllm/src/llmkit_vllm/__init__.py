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
    from llmkit.engines.inference.remote.opening import served_logprobs
    from llmkit.engines.servers.fleet import given_fleet
    from llmkit_vllm.dialect import VLLMDialect
    from llmkit_vllm.weights import VLLMReceiver

    logprobs = "processed"
    if config.urls:  # servers that somebody else started, with a --logprobs-mode that nobody tells
        key = None if config.api_key is None else config.api_key.get_secret_value()
        logprobs = served_logprobs(given_fleet(config.urls, config.served_name, key), config.deadlines)
    return open_engine(
        PROGRAM, config, context, VLLMDialect(logprobs), VLLMReceiver(), default_lora_rank=DEFAULT_LORA_RANK
    )
