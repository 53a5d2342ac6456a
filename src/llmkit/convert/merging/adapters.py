"""An adapter on disk: what it is, what it was trained on, and why it may not become part of its base model."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import peft
from pydantic import ValidationError

from llmkit import plugins
from llmkit.adapters.adapter_files import CONFIG, WEIGHTS, read_config
from llmkit.adapters.contract import Facts
from llmkit.config.schema import ModelConfig
from llmkit.convert.tensor_files import SafetensorsReader
from llmkit.errors import CheckpointError, ConfigError, PluginError

RUN_RECORD = "llmkit.json"
REASONS = {
    "XLORA": "it weighs its adapters anew for every token",
    "POLY": "it weighs its adapters by the task that comes with each row",
    "LILY": "its routing depends on the input",
    "CPT": "it is a prompt of trained vectors, not an update of weights",
    "MULTITASK_PROMPT_TUNING": "it is a prompt of trained vectors, not an update of weights",
}
"""Kinds of PEFT that llmkit does not train, and why they cannot be merged."""
LOST_STARTS = ("corda", "lora_ga", "loftq", "pissa_niter_")
"""Starts of PEFT that change the base weights in a way that the adapter's files do not tell."""
RECOMPUTED_STARTS = ("pissa", "olora")
"""Starts that change them in a way that follows from the weights alone."""


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter's directory.

    Attributes:
        path: the directory.
        config: PEFT's configuration.
        run: the resolved settings of the run that trained it; empty when llmkit did not.
    """

    path: Path
    config: Any
    run: dict[str, Any]

    @property
    def kind(self) -> str:
        """PEFT's name of what it is."""
        kind = self.config.peft_type
        return str(getattr(kind, "value", kind))

    @property
    def start(self) -> str:
        """How a LoRA began, in PEFT's words; empty for `true`, `false` and other kinds."""
        start = getattr(self.config, "init_lora_weights", "")
        return start.lower() if isinstance(start, str) else ""

    @cached_property
    def weights(self) -> SafetensorsReader:
        """Its weights, read when they are asked for."""
        return SafetensorsReader(self.path / WEIGHTS)

    @property
    def model(self) -> dict[str, Any]:
        """The section `model` of its run."""
        return self.run.get("model") or {}

    @property
    def has_tokenizer(self) -> bool:
        """Whether the tokenizer that it was trained with lies beside it."""
        return (self.path / "tokenizer_config.json").is_file()

    def base_config(self, base: str | None, revision: str | None, *, trust_remote_code: bool) -> ModelConfig:
        """Its base model with whole weights and the tokens that the run has added.

        Args:
            base: path or name to use in place of the recorded one.
            revision: the same of the revision.

        Raises:
            ConfigError: nobody says what it is.
        """
        path = base or self.model.get("path") or self.config.base_model_name_or_path
        if not path:
            raise ConfigError(f"{self.path / CONFIG}: does not say of which model; name it with --base")
        recorded = None if base else self.model.get("revision") or self.config.revision
        grown = {key: self.model[key] for key in ("add_tokens", "add_special_tokens") if self.model.get(key)}
        trusted = trust_remote_code or (not base and bool(self.model.get("trust_remote_code")))
        values = {"path": str(path), "revision": revision or recorded, "trust_remote_code": trusted, **grown}
        try:
            return ModelConfig.model_validate(values)
        except ValidationError as error:
            raise CheckpointError(f"{self.path / RUN_RECORD}: not what llmkit wrote: {error}") from error


def read_adapter(path: Path) -> StoredAdapter:
    """The adapter in a directory.

    Raises:
        ConfigError: it holds something else.
        CheckpointError: a file of it is missing or damaged.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: no such directory; give the directory with {CONFIG}")
    if not (path / CONFIG).is_file():
        raise ConfigError(_no_adapter(path))
    if not (path / WEIGHTS).is_file():
        raise CheckpointError(f"{path}: {CONFIG} without {WEIGHTS}; the copy is incomplete, or of an old PEFT")
    return StoredAdapter(path, read_config(path), _read_run(path))


def check_mergeable(adapter: StoredAdapter) -> None:
    """Refuse what cannot become part of a base model's weights.

    Raises:
        ConfigError: names the adapter and the reason.
    """
    if reason := _not_mergeable(adapter):
        raise ConfigError(
            f"{adapter.path}: {adapter.kind} cannot be merged into its base model: {reason}. Load it beside the base "
            "model instead"
        )


def _not_mergeable(adapter: StoredAdapter) -> str:
    config = adapter.config
    if adapter.kind in REASONS:
        return REASONS[adapter.kind]
    if getattr(config, "is_prompt_learning", False):
        return "it is a prompt of trained vectors, not an update of weights"
    reasons = [facts.not_mergeable for facts in plugin_facts(adapter.kind)]
    if reasons and all(reasons):
        return reasons[0]
    if getattr(config, "lora_bias", False):
        return "lora_bias=true adds a bias, which layers without one cannot take"
    if getattr(config, "alora_invocation_tokens", None):
        return "it is on only after its invocation tokens (alora_invocation_tokens), and weights are always on"
    if getattr(config, "layer_replication", None):
        return "it repeats layers of the base model (layer_replication), which then share weights and not updates"
    if (adapter.run.get("adapter") or {}).get("name") == "loftq":
        return "LoftQ makes up for the rounding of 4-bit weights, which whole weights do not have"
    lost = next((start for start in LOST_STARTS if adapter.start.startswith(start)), None)
    if lost is not None:
        return (
            f"init_lora_weights={adapter.start!r} has changed the base weights at the start, and these files do not "
            "say how; save it with PEFT's path_initial_model_for_weight_conversion, or train it with llmkit, whose "
            "checkpoints say it"
        )
    return ""


def plugin_facts(kind: str) -> list[Facts]:
    """What each adapter plugin for a kind of PEFT says of it."""
    config_class = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(kind)].__name__
    found = []
    for name in plugins.names("adapters"):
        try:
            plugin = plugins.load("adapters", name)
        except PluginError:
            continue  # a broken one of somebody else's says nothing of this kind
        if getattr(plugin, "peft_class", None) == config_class:
            found.append(plugin.facts)
    return found


def _no_adapter(path: Path) -> str:
    if (path / "config.json").is_file():
        return f"{path}: a whole model, which has nothing to merge; an adapter's directory has {CONFIG}"
    steps = sorted((path / "checkpoints").glob("step-*/" + CONFIG), key=lambda file: file.stat().st_mtime)
    if steps:
        return f"{path}: a run's directory; give the adapter of one step: {steps[-1].parent}"
    return f"{path}: no {CONFIG}, so this is no adapter in PEFT's layout"


def _read_run(path: Path) -> dict[str, Any]:
    # Averaged weights lie in a directory of their checkpoint.
    for record in (path / RUN_RECORD, path.parent / RUN_RECORD):
        if record.is_file():
            try:
                config = json.loads(record.read_text(encoding="utf-8"))["config"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{record}: cannot be read: {error}") from error
            return config if isinstance(config, dict) else {}
    return {}
