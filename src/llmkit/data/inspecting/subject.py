"""What is looked at: the data of a run with all that makes tokens of it, opened as the run opens it."""

from dataclasses import dataclass
from typing import Any

from llmkit import plugins
from llmkit.config.resolve import Resolved
from llmkit.config.runs import DPORun, GRPORun, SFTRun
from llmkit.config.schema import ModelConfig
from llmkit.data.chat.prefix_property import check_prefix_property
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Dataset, Encoder, Formatter, Sized, Stream, choose_formatter, to_record
from llmkit.data.encoders import PairEncoder, PromptEncoder, SampleEncoder
from llmkit.data.every_row import every_row
from llmkit.data.inspecting.labelling import Labeller
from llmkit.data.inspecting.measuring import MeasuringEncoder
from llmkit.data.opening import open_codec
from llmkit.data.splitting import split
from llmkit.errors import DataError, ModelError
from llmkit.models.loading import context_length

MADE_OF = {"builtin:tiny": "builtin:tiny-untrained"}
"""The embedded model that is trained first, in minutes, and the one that has its tokenizer at once."""


@dataclass(frozen=True)
class Subject:
    """The data of one run.

    Attributes:
        command: `train/sft`, say.
        run: its settings; `data.max_length` is within the model's context.
        model: the settings of the model whose tokenizer counts.
        data: rows to train on, without those that the run holds out.
        formatter: reads them.
        formatter_name: as settings name it.
        codec: tokenizer and chat template.
        encoder: makes what is trained of records.
        labeller: tells which message each token comes from.
    """

    command: str
    run: SFTRun | DPORun | GRPORun
    model: ModelConfig
    data: Dataset | Stream
    formatter: Formatter
    formatter_name: str
    codec: TextCodec
    encoder: Encoder[Any]
    labeller: Labeller

    @property
    def num_rows(self) -> int | None:
        """Rows of the set; None when a stream does not know."""
        return len(self.data) if isinstance(self.data, Sized) else None

    @property
    def measuring_encoder(self) -> MeasuringEncoder:
        """Gives figures in place of what is trained."""
        return MeasuringEncoder(self.encoder, self.labeller, self.run.data)

    @property
    def bin_capacity(self) -> int | None:
        """Tokens of a bin when the run packs its rows; prompts are not packed."""
        if isinstance(self.run, GRPORun):
            return None
        return self.run.batch.pack_length or self.run.data.max_length

    def hint(self) -> str:
        """What to say when the first row is of another kind than the run trains on; empty when it fits."""
        for row in every_row(self.data, 1):
            try:
                record = None if isinstance(row, DataError) else to_record(row, self.formatter)
            except DataError:
                return ""
            if record is not None and record.chosen and isinstance(self.run, SFTRun):
                return "The rows are preference pairs; look at them with --for dpo"
            if record is not None and not record.chosen and isinstance(self.run, DPORun):
                return "The rows are no preference pairs; look at them with --for sft, or --for grpo as prompts"
        return ""

    def template_verdict(self) -> tuple[bool, str]:
        """Whether the chat template keeps earlier turns as they are, and a sentence about it."""
        try:
            report = check_prefix_property(self.codec)
        except ModelError as error:
            return True, str(error)
        return report.holds, str(report)


def open_subject(resolved: Resolved[Any]) -> Subject:
    """Open data and tokenizer.

    Raises:
        ConfigError, PluginError: a setting is wrong.
        DataError: the data cannot be read, or no formatter fits it.
        ModelError: there is no tokenizer.
    """
    run: SFTRun | DPORun | GRPORun = resolved.run
    data = _build("datasets", run.dataset)
    formatter = choose_formatter(_build("formatters", run.formatter), data)
    if run.data.validation_fraction and run.eval_dataset is None:
        data, _ = split(data, run.data.validation_fraction, run.seed)
    model = run.model
    if model.path in MADE_OF:
        model = model.model_copy(update={"path": MADE_OF[model.path]})
    codec = open_codec(model, special_tokens_in_text=run.data.special_tokens_in_text)
    max_length = min(run.data.max_length, context_length(model))
    run = run.model_copy(update={"data": run.data.model_copy(update={"max_length": max_length})})
    labeller = Labeller(
        codec,
        special_tokens_in_text=run.data.special_tokens_in_text,
        for_prompts=isinstance(run, GRPORun),
    )
    name = _name_of(formatter, run.formatter.name)
    return Subject(resolved.command, run, model, data, formatter, name, codec, _encoder(codec, run), labeller)


def _encoder(codec: TextCodec, run: SFTRun | DPORun | GRPORun) -> Encoder[Any]:
    """What makes the run's training items of records."""
    if isinstance(run, SFTRun):
        return SampleEncoder(codec, run.data)
    if isinstance(run, DPORun):
        return PairEncoder(codec, run.data)
    return PromptEncoder(codec, run.data, run.sampling.max_new_tokens)


def _name_of(formatter: Formatter, configured: str) -> str:
    """The name of the chosen formatter: the one whose module the plugin is."""
    module = type(formatter).__module__
    names = (name for name in plugins.names("formatters") if plugins.find("formatters", name).module == module)
    return next(names, configured)


def _build(kind: str, section: Any) -> Any:
    return plugins.load(kind, section.name).build(section)
