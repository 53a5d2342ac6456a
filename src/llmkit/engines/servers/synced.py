"""Engines over servers that take a policy's weights: their settings, and how they are put together."""

from typing import TYPE_CHECKING, Any

from llmkit.config.section import all_defaults
from llmkit.config.servers import ServerEngineConfig
from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.inference.remote.deadlines import Deadlines
from llmkit.engines.servers.program import Program

if TYPE_CHECKING:
    from llmkit.engines.inference.remote.contract import Dialect
    from llmkit.engines.inference.remote.refusals import ServedLogprobs
    from llmkit.engines.inference.weight_sync.contract import Receiver
    from llmkit.models.policy import Policy


class SyncedConfig(ServerEngineConfig):
    """Servers that take weights from a trainer."""

    sync: WeightSyncConfig = all_defaults(WeightSyncConfig)
    """How the servers get the policy's weights."""
    deadlines: Deadlines = all_defaults(Deadlines)
    """How long each kind of waiting for a server may take."""


def open_engine(
    program: Program,
    config: SyncedConfig,
    context: EngineContext,
    dialect: "Dialect",
    receiver: "Receiver",
    *,
    default_lora_rank: int,
) -> ServingEngine:
    """Start the servers, or find those that run already or that another process of the run has started.

    Args:
        dialect: how they are spoken to.
        receiver: how they take weights.
        default_lora_rank: of the adapters that they take, where `max_lora_rank` is unset.
    Raises:
        ConfigError: a setting cannot be had; nothing was started.
        EngineError: a server did not start or does not answer.
    """
    from llmkit.engines.inference.remote.engine import RemoteEngine
    from llmkit.engines.inference.weight_sync.opening import open_weight_sync
    from llmkit.engines.servers.opening import open_fleet

    if context.shared is not None:
        fleet, sync = context.shared.fleet, context.shared.sync
        return RemoteEngine(fleet, dialect, tokenizer=context.tokenizer, sync=sync, deadlines=config.deadlines)
    sync = None
    if context.policy is not None:  # first: what it refuses need not wait for a server
        config = with_room_for_adapter(program, config, context.policy)
        rank = (config.max_lora_rank or default_lora_rank) if config.max_loras else None
        sync = open_weight_sync(config.sync, context.policy, dialect, receiver, max_lora_rank=rank)
    fleet = open_fleet(program, config, context)
    try:
        return RemoteEngine(fleet, dialect, tokenizer=context.tokenizer, sync=sync, deadlines=config.deadlines)
    except BaseException:
        fleet.close()
        raise


def logprobs_of(config: SyncedConfig, context: EngineContext) -> "ServedLogprobs":
    """Which log-probabilities the servers give: as they are started, or as those that run already are found to do.

    Raises:
        ConfigError: servers that run already give none, or not all the same.
        EngineError: none of them answers.
    """
    if not config.urls:
        return config.logprobs or context.logprobs
    from llmkit.engines.inference.remote.opening import served_logprobs
    from llmkit.engines.servers.fleet import given_fleet

    key = None if config.api_key is None else config.api_key.get_secret_value()
    return served_logprobs(given_fleet(config.urls, config.served_name, key), config.deadlines)


def with_room_for_adapter(program: Program, config: SyncedConfig, policy: "Policy") -> SyncedConfig:
    """The settings with a place for the policy's LoRA, where it can be sent alone and nobody has set any.

    Servers that run already have the places that they were started with.
    """
    from llmkit.engines.inference.weight_sync.adapter_weights import not_servable, rank_of

    is_wanted = config.sync.transport in ("auto", "adapter")
    if config.urls or config.max_loras or not is_wanted or not_servable(policy):
        return config
    ranks = program.choices.get("max_lora_rank", ())
    fitting = [rank for rank in ranks if rank >= rank_of(policy)]
    if ranks and not fitting:
        return config  # too high for these servers: they get merged weights
    update: dict[str, Any] = {"max_loras": 1, "max_lora_rank": min(fitting, default=rank_of(policy))}
    return config.model_copy(update=update)
