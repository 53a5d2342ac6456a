"""SGLang as servers that llmkit starts, in an environment of its own."""

from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.servers.synced import SyncedConfig, open_engine
from llmkit_sglang.program import PROGRAM as PROGRAM

DETERMINISTIC = "--enable-deterministic-inference"


class Config(SyncedConfig):
    """What SGLang can be told; `llmkit engines install sglang` makes its environment."""


def build(config: Config, context: EngineContext) -> ServingEngine:
    """Start the servers, or find those that run already.

    Raises:
        ConfigError: a setting cannot be had; nothing was started.
        EngineError: a server did not start or does not answer.
    """
    from llmkit.engines.servers.synced import logprobs_of
    from llmkit_sglang.dialect import SGLangDialect
    from llmkit_sglang.weights import SGLangReceiver

    dialect = SGLangDialect(logprobs_of(config, context), repeats_seeds=DETERMINISTIC in config.extra_args)
    # Its servers make room for adapters of one rank when they start, which PROGRAM wants to be told.
    rank = config.max_lora_rank or 0
    return open_engine(PROGRAM, config, context, dialect, SGLangReceiver(), default_lora_rank=rank)
