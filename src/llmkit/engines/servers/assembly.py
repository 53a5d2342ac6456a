"""An engine over the servers of a program, put together: fleet, dialect, weights."""

from typing import Any

from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.inference.remote.contract import Dialect
from llmkit.engines.inference.remote.engine import RemoteEngine
from llmkit.engines.inference.weight_sync.adapter_weights import not_servable, rank_of
from llmkit.engines.inference.weight_sync.contract import Receiver
from llmkit.engines.inference.weight_sync.opening import open_weight_sync
from llmkit.engines.servers.opening import open_fleet
from llmkit.engines.servers.program import Program
from llmkit.models.policy import Policy


def build_engine(
    program: Program, config: Any, context: EngineContext, dialect: Dialect, receiver: Receiver, *, default_rank: int
) -> RemoteEngine:
    """Start servers, or find those that run already or that another process of the run has started.

    Args:
        config: a `ServerEngineConfig` with the sections `sync` and `deadlines`.
        receiver: how the servers take weights.
        default_rank: of adapters, where `max_lora_rank` is unset.
    Raises:
        ConfigError: a setting cannot be had; nothing was started.
        EngineError: a server did not start or does not answer.
    """
    if context.shared is not None:
        fleet, sync = context.shared.fleet, context.shared.sync
        return RemoteEngine(fleet, dialect, tokenizer=context.tokenizer, sync=sync, deadlines=config.deadlines)
    sync = None
    if context.policy is not None:
        config = with_room_for_adapter(program, config, context.policy)
        rank = (config.max_lora_rank or default_rank) if config.max_loras else None
        sync = open_weight_sync(config.sync, context.policy, dialect, receiver, max_lora_rank=rank)
    fleet = open_fleet(program, config, context)
    try:
        return RemoteEngine(fleet, dialect, tokenizer=context.tokenizer, sync=sync, deadlines=config.deadlines)
    except BaseException:
        fleet.close()
        raise


def with_room_for_adapter(program: Program, config: Any, policy: Policy) -> Any:
    """The settings with a place for the policy's LoRA, where it can be sent alone and nobody has set any.

    Servers that run already have the places that they were started with.
    """
    is_wanted = config.sync.transport in ("auto", "adapter")
    if config.urls or config.max_loras or not is_wanted or not_servable(policy):
        return config
    ranks = program.choices.get("max_lora_rank", ())
    fitting = [rank for rank in ranks if rank >= rank_of(policy)]
    if ranks and not fitting:
        return config  # too high for these servers: they get merged weights
    update: dict[str, Any] = {"max_loras": 1, "max_lora_rank": min(fitting, default=rank_of(policy))}
    return config.model_copy(update=update)
