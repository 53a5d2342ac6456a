"""From settings to the vocabulary's values, and what of them cannot be had."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, get_args

from llmkit import machine
from llmkit.config.schema import ModelConfig
from llmkit.config.servers import ServerEngineConfig
from llmkit.engines.inference.contract import Demand, EngineContext
from llmkit.engines.servers.kv_cache import GB, cache_bytes_per_token
from llmkit.engines.servers.program import Device, Option, Program, Situation
from llmkit.errors import ConfigError
from llmkit.models.loading import NO_LIMIT, checkpoint_path, load_text_config

CPU_CACHE_GB = (1.0, 2.0)
"""Least and most gigabytes of KV cache on a CPU where nobody set any."""
CPU_CACHE_SHARE = 0.2
"""Of the memory that is free, for the KV caches of all servers on a CPU together."""
MODEL_OPTIONS = ("revision", "trust_remote_code", "tokenizer")
"""Options that come from `model` and change nothing where they are not set."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model as servers are told of it.

    Attributes:
        path: directory or Hugging Face name.
        architecture: the language model's part of its `config.json`.
        context_length: most tokens; None without a limit.
    """

    path: str
    architecture: Mapping[str, Any]
    context_length: int | None


def look_at_model(model: ModelConfig, title: str) -> ServedModel:
    """Find the model and read its configuration.

    Raises:
        ConfigError: servers cannot have what the settings make of the model.
        ModelError: it is not there or cannot be read.
    """
    plain = ModelConfig()
    for name in ("add_tokens", "add_special_tokens", "pad_vocab_to_multiple_of", "quantization"):
        if getattr(model, name) != getattr(plain, name):
            raise ConfigError(
                f"model.{name}={getattr(model, name)!r}: {title} reads the checkpoint as it is and would serve another "
                "model; write one with it first (`llmkit convert`), or use engine.name=native"
            )
    text = load_text_config(model)
    length = getattr(text, "max_position_embeddings", None) or NO_LIMIT
    return ServedModel(checkpoint_path(model), text.to_dict(), None if length >= NO_LIMIT else length)


def options_of(
    config: ServerEngineConfig, context: EngineContext, model: ServedModel, device: Device
) -> dict[str, Any]:
    """The vocabulary's values that settings give, host, port and chat template excepted."""
    kept: dict[str, Any] = {
        "model": model.path,
        "revision": context.model.revision,
        "trust_remote_code": context.model.trust_remote_code,
        "tokenizer": context.model.tokenizer,
        "served_name": config.served_name or name_of(context.model.path),
        "api_key": None if config.api_key is None else config.api_key.get_secret_value(),
        "dtype": config.dtype or context.model.dtype,
        "max_model_len": config.max_model_len or _longest(context.demand, model),
        "logprobs": config.logprobs or context.logprobs,
    }
    for name in get_args(Option):
        if name not in kept and name in ServerEngineConfig.model_fields:
            kept[name] = getattr(config, name)
    if device == "cpu" and config.cache_memory_gb is None and config.memory_share is None:
        kept["cache_memory_gb"] = _modest_cache(config, context.demand, model, kept["dtype"])
    return {name: value for name, value in kept.items() if value is not None}


def name_of(path: str) -> str:
    """What requests call a model that was given no name: `builtin:tiny` is `tiny`, `/models/poet` is `poet`."""
    return PurePath(path.removeprefix("builtin:")).name or path


def key_of(name: Option) -> str:
    """The setting that an option is written from."""
    if name in ServerEngineConfig.model_fields:
        return f"engine.{name}"
    return {"model": "model.path", "host": "server.host", "port": "server.port"}.get(name, f"model.{name}")


def check_options(program: Program, config: ServerEngineConfig, situation: Situation) -> None:
    """Refuse what the program does not know or cannot do, before it is started.

    Raises:
        ConfigError: names all that is wrong.
    """
    faults = [*_unknown(program, config, situation), *_bad_choices(program, situation), *_impossible(situation)]
    faults += program.objections(situation)
    if faults:
        raise ConfigError("\n".join(faults))


def _longest(demand: Demand | None, model: ServedModel) -> int | None:
    if demand is None:
        return None
    return min(demand.max_tokens, model.context_length or demand.max_tokens)


def _modest_cache(config: ServerEngineConfig, demand: Demand | None, model: ServedModel, dtype: str) -> float:
    """Gigabytes of KV cache that leave a computer its memory: engines would take most of it."""
    least, most = CPU_CACHE_GB
    memory = machine.memory()
    free = memory["available"] or memory["total"] or 0
    per_token = cache_bytes_per_token(model.architecture, dtype)
    if demand is not None and per_token is not None:
        most = min(most, demand.num_completions * demand.max_tokens * per_token / GB)
    return max(least, min(most, free * CPU_CACHE_SHARE / config.dp / GB))


def _unknown(program: Program, config: ServerEngineConfig, situation: Situation) -> list[str]:
    faults: list[str] = []
    for name in get_args(Option):
        field, key = ServerEngineConfig.model_fields.get(name), key_of(name)
        if field is None:
            is_asked = name in MODEL_OPTIONS and bool(situation.options.get(name))
        else:
            is_asked = getattr(config, name) != field.get_default(call_default_factory=True)
        if not is_asked:
            continue
        shown = "***" if name == "api_key" else repr(situation.options.get(name))
        only = program.option_devices.get(name)
        if name not in program.options:
            faults.append(f"{key}={shown}: {program.title} has no such option; leave it out")
        elif only is not None and only != situation.device:
            faults.append(f"{key}={shown}: {program.title} has this on {only} alone, and runs on {situation.device}")
    return faults


def _bad_choices(program: Program, situation: Situation) -> list[str]:
    faults: list[str] = []
    for name, allowed in program.choices.items():
        value = situation.options.get(name)
        if value is None or value in allowed:
            continue
        hint = ""
        if isinstance(value, int) and (higher := [one for one in allowed if one > value]):
            hint = f"; {min(higher)} holds it too"
        faults.append(f"engine.{name}={value}: {program.title} takes {', '.join(map(str, allowed))}{hint}")
    return faults


def _impossible(situation: Situation) -> list[str]:
    faults: list[str] = []
    tp, limit = situation.options["tp"], situation.context_length
    heads = situation.architecture.get("num_attention_heads")
    groups = situation.architecture.get("num_key_value_heads") or heads
    if heads and heads % tp:
        faults.append(f"engine.tp={tp} does not divide the model's {heads} attention heads; take a divisor of {heads}")
    elif groups and groups % tp and tp % groups:
        faults.append(f"engine.tp={tp} does not go with the model's {groups} key-value heads; take a divisor of them")
    layers = situation.architecture.get("num_hidden_layers")
    if layers and situation.options["pp"] > layers:
        faults.append(f"engine.pp={situation.options['pp']}: the model has {layers} layers, and a stage needs one")
    length = situation.options.get("max_model_len")
    if limit and length and length > limit:
        faults.append(f"engine.max_model_len={length}: the model's context has {limit} tokens; lower it")
    return faults
