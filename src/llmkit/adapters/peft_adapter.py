"""What adapters of PEFT share: a subclass declares its options and facts, and this class does the work."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from llmkit.adapters.contract import Adapter, AdapterContext, Facts
from llmkit.config.section import Section
from llmkit.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

Values = Mapping[str, Any]
"""Names of settings with something that belongs to each."""


class TargetConfig(Section):
    """Which modules of the model are adapted."""

    target_modules: tuple[str, ...] | str = "all-linear"
    """Names of the modules to adapt, a regular expression for their full names, or `all-linear` for every linear layer
    but the output head."""
    modules_to_save: tuple[str, ...] = ()
    """Names of modules that train as they are, beside the adapter, and are saved with it: `lm_head`, for example."""


class LayerConfig(TargetConfig):
    """Which modules of which layers are adapted."""

    layers_to_transform: tuple[int, ...] | None = Field(None, min_length=1)
    """Numbers of the layers to adapt, from 0; unset adapts them all."""


class ExcludingConfig(LayerConfig):
    """Which modules of which layers are adapted, and which are not."""

    exclude_modules: tuple[str, ...] | str | None = None
    """Names of modules, or a regular expression for full names, to leave out of `target_modules`."""


class PeftAdapter(Adapter):
    """Wraps a model in `peft.PeftModel`.

    Attributes:
        Config: the plugin's options.
        peft_class: name of PEFT's configuration class.
        facts: with default options; an instance has those of its own options.
        fixed: what PEFT's configuration gets besides the options; it makes the variant.
        renamed: PEFT's names of options that have another one here.
        own_options: options that are not PEFT's.
        start_settings: PEFT's settings that say how to begin, with the values that begin from nothing. Checkpoints and
            models without weights have these values.
        alias_of: the adapter that this one is another name of.
        packages: top-level modules that it needs, and the name that pip knows each by.
        EXTRA: the extra of llmkit that installs them.
    """

    Config: ClassVar[type[Section]]
    peft_class: ClassVar[str]
    fixed: ClassVar[Values] = {}
    renamed: ClassVar[Values] = {}
    own_options: ClassVar[frozenset[str]] = frozenset()
    start_settings: ClassVar[Values] = {}
    alias_of: ClassVar[str] = ""
    packages: ClassVar[Values] = {}
    EXTRA: ClassVar[str | None] = None

    def __init__(self, config: Any) -> None:
        self.config = config
        self.context = AdapterContext()
        self.facts = self.facts_of(config)

    @classmethod
    def build(cls, config: Any) -> Self:
        """Make the adapter.

        Raises:
            PluginError: a package that it needs is not installed.
        """
        name = getattr(config, "name", cls.__name__)
        missing = [package for module, package in cls.packages.items() if find_spec(module) is None]
        if missing:
            raise PluginError(f"adapter.name={name} needs {' and '.join(missing)}: pip install 'llmkit[{cls.EXTRA}]'")
        if cls.alias_of:
            logger.warning("adapter.name=%s is another name of '%s'", name, cls.alias_of)
        return cls(config)

    @classmethod
    def facts_of(cls, config: Any) -> Facts:
        """What is true with these options."""
        drops = any(getattr(config, name, 0) for name in ("module_dropout", "rank_dropout"))
        # These are numbers inside PEFT's layers; what switches dropout off does not find them.
        return replace(cls.facts, is_random=True) if drops else cls.facts

    @property
    def name(self) -> str:
        """The name that chose it."""
        return getattr(self.config, "name", type(self).__name__)

    def begin(self, context: AdapterContext) -> None:
        """Hear what the run knows; refuse what cannot work whatever the model."""
        self.context = context
        if context.pads_vocabulary:
            raise ConfigError(
                f"adapter.name={self.name}: the rows of model.pad_vocab_to_multiple_of belong to the base model, which "
                "an adapter's checkpoint does not hold; leave it unset, or use adapter.name=full"
            )
        if context.new_tokens:
            # Engines load an adapter beside the base model as it is.
            whole = bool(getattr(self.config, "modules_to_save", ()))
            trains = self.facts.trains_new_tokens or whole
            self.facts = replace(self.facts, trains_new_tokens=trains, servable_by=(), convertible_to_lora=False)
        if context.quantization == "none":
            return
        rounding = f"weights of model.quantization={context.quantization} would round it; merge it into the whole ones"
        self.facts = replace(self.facts, not_mergeable=self.facts.not_mergeable or rounding)
        if context.quantization not in self.facts.works_on_quantised:
            raise ConfigError(
                f"adapter.name={self.name} does not train beside weights of model.quantization={context.quantization}; "
                "use adapter.name=lora, or model.quantization=none"
            )

    def check(self, model: "nn.Module") -> None:
        """Refuse a model without the modules that the options name, or with new tokens that would not train."""
        from llmkit.adapters.new_tokens import check_new_tokens
        from llmkit.adapters.target_modules import check_targets

        check_targets(model, self.config)
        if self.context.new_tokens:
            check_new_tokens(model, self.config, by_row=type(self).facts.trains_new_tokens)

    def attach(self, model: "nn.Module") -> "nn.Module":
        """The wrapped model.

        Raises:
            ConfigError: the adapter does not fit the model.
        """
        from llmkit.adapters.wrapping import is_on_meta, wrap

        self.check(model)
        plain = is_on_meta(model)
        wrapped = wrap(model, self.peft_config(model, plain=plain), self.name)
        if not plain:
            self.start(wrapped)
        return wrapped

    def start(self, model: Any) -> None:
        """What is left to do once the model is wrapped, in a run that begins."""

    def restore(self, model: "nn.Module", directory: Path) -> "nn.Module":
        """The model wrapped with the checkpoint's adapter, ready to train on."""
        from llmkit.adapters.adapter_files import read_config, read_weights
        from llmkit.adapters.wrapping import load_state, wrap

        wrapped = wrap(model, read_config(directory), self.name)
        load_state(wrapped, read_weights(directory), directory)
        return wrapped

    def save(self, model: Any, directory: Path) -> None:
        """Write weights and configuration in PEFT's layout."""
        from llmkit.adapters.adapter_files import adapter_state, write_adapter

        config = model.peft_config["default"]
        write_adapter(directory, config, adapter_state(model), keep=self.peft_options(), **self.base_model())

    def merge(self, model: Any) -> "nn.Module":
        """The model with the update in its own weights.

        Raises:
            ConfigError: this adapter's update is not one of weights.
        """
        from llmkit.adapters.wrapping import merge

        if self.facts.not_mergeable:
            raise ConfigError(
                f"adapter.name={self.name} cannot be merged into its base model: {self.facts.not_mergeable}. "
                "Load it beside the base model instead"
            )
        return merge(model)

    def save_as_lora(self, model: Any, directory: Path, rank: int | None = None) -> None:
        """Write the update as a plain LoRA, by singular values.

        Raises:
            ConfigError: it is not an added matrix, or the rank does not fit.
        """
        from llmkit.adapters.conversion import write_as_lora

        if not self.facts.convertible_to_lora:
            raise ConfigError(
                f"adapter.name={self.name} cannot become a LoRA: its update is not a matrix that is added to the "
                "weight. Serve the merged model instead"
            )
        write_as_lora(model, directory, rank, self.base_model())

    def base_model(self) -> dict[str, str | None]:
        """What checkpoints say of the base model."""
        return {"base_model_name_or_path": self.context.base_model, "revision": self.context.revision}

    def peft_options(self) -> dict[str, Any]:
        """The options in PEFT's words; those that are unset or empty are left to its defaults."""
        values = self.config.model_dump(exclude={"name", *self.own_options})
        named = {self.renamed.get(key, key): _plain(value) for key, value in values.items()}
        chosen = {key: value for key, value in named.items() if value is not None and value not in ([], {})}
        return {**chosen, **self.fixed}

    def peft_config(self, model: "nn.Module", *, plain: bool = False) -> Any:
        """PEFT's configuration for a model.

        Args:
            plain: begin from nothing, for a model that has no weights to look at.
        """
        import peft

        from llmkit.adapters.new_tokens import rows_to_train
        from llmkit.adapters.target_modules import resolve_targets
        from llmkit.adapters.wrapping import quiet

        options = self.peft_options()
        if "target_modules" in options:
            options["target_modules"] = resolve_targets(model, options["target_modules"])
        if self.context.new_tokens and type(self).facts.trains_new_tokens:
            options["trainable_token_indices"] = rows_to_train(model, self.config, self.context.new_tokens)
        if plain:
            options |= self.start_settings
        try:
            with quiet():
                return getattr(peft, self.peft_class)(task_type="CAUSAL_LM", **options)
        except ValueError as error:
            raise ConfigError(f"adapter.name={self.name}: {error}") from error


def _plain(value: Any) -> Any:
    """A value as PEFT writes it into JSON: tuples as lists, whole numbers without a fraction."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
