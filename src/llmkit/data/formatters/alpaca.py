"""Alpaca: `{instruction, input, output}` with optional system, history, tools, and chosen and rejected."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.data.formatters.cells import from_cell
from llmkit.data.formatters.columns import Place, as_text, given, label_of, optional_text, require
from llmkit.data.formatters.detection import SURE_COMPLETIONS
from llmkit.data.formatters.holding import Feature, cannot_hold, refuse_unheld, with_extra
from llmkit.data.formatters.media import take_media
from llmkit.data.formatters.rows import MEDIA_COLUMNS, SharedColumns, make_record, reserved, share, shared_row
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Message, Record, Row

HELD: frozenset[Feature] = frozenset({"a preference pair", "tool schemas", "a label", "a reference answer", "media"})


class Config(SharedColumns):
    """What the user says is the instruction and, on a new line, the input. Answers in the history are trained too; a
    row without output is a prompt to sample from."""

    instruction_column: str = "instruction"
    """Column with the instruction."""
    input_column: str | None = "input"
    """Column with what the instruction is about; rows need not have it."""
    output_column: str | None = "output"
    """Column with the answer."""
    system_column: str | None = "system"
    """Column with the system prompt; rows need not have it."""
    history_column: str | None = "history"
    """Column with earlier turns: a list of [question, answer]."""
    chosen_column: str | None = "chosen"
    """Column with the preferred answer, in place of an output."""
    rejected_column: str | None = "rejected"
    """Column with the other answer."""
    label_column: str | None = "label"
    """Column that says whether the output is a good one; rows need not have it."""


def build(config: Config) -> "Alpaca":
    """Make the formatter."""
    return Alpaca(config)


class Alpaca:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._used = config.columns() - {config.answer_column}

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows with instruction and output, or with both answers; an instruction alone counts half."""
        return share(rows, self._fit)

    def to_record(self, row: Row) -> Record:
        """Read one row; other columns go to `extra`."""
        config = self._config
        messages = (*self._before(row), Message("user", self._question(row)))
        output = _text(row, config.output_column)
        chosen, rejected = self._pair(row)
        if chosen and output:
            raise DataError(
                f"{row.source}: the row has '{config.output_column}' beside '{config.chosen_column}' and "
                f"'{config.rejected_column}'; keep the output or the pair"
            )
        if output is not None and not chosen:
            messages = (*messages, Message("assistant", output))
        label = label_of(row, config.label_column)
        return make_record(row, config, self._used, messages, chosen=chosen, rejected=rejected, label=label)

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write the last question as instruction, its answer as output, and what came before as history."""
        config = self._config
        refuse_unheld(record, "alpaca", HELD)
        messages, urls = take_media(record, "alpaca")
        turns = [message.text for message in messages if message.role != "system"]
        roles = [message.role for message in messages]
        system = [message.text for message in messages[:1] if message.role == "system"]
        alternating = [("user", "assistant")[index % 2] for index in range(len(turns))]
        questions, answers = turns[::2], turns[1::2]
        is_answered_pair = bool(record.chosen) and len(answers) == len(questions)
        if not turns or roles != ["system"] * len(system) + alternating or system == [""] or is_answered_pair:
            raise cannot_hold(record, "alpaca", f"a conversation of {', '.join(roles) or 'no messages'}")
        row: dict[str, Any] = {config.instruction_column: questions[-1]}
        optional: list[tuple[str | None, Any]] = [
            (config.input_column, ""),
            (config.output_column, answers[-1] if len(answers) == len(questions) else None),
            (config.system_column, system[0] if system else None),
            (config.history_column, [list(turn) for turn in zip(questions[:-1], answers, strict=False)] or None),
            (config.label_column, record.label),
            *[(getattr(config, option), urls.get(medium)) for medium, option in MEDIA_COLUMNS.items()],
            *zip((config.chosen_column, config.rejected_column), self._written_pair(record), strict=True),
        ]
        for column, value in optional:
            if value is not None and column is not None:
                row[column] = value
            elif value:
                raise cannot_hold(record, "alpaca", "all of this record: the option for a column that it needs is null")
        row |= shared_row(record, config, record.tools)
        return with_extra(row, record, "alpaca", reserved(record, config))

    def _fit(self, row: Row) -> float:
        config = self._config
        if not isinstance(row.values.get(config.instruction_column), str):
            return 0.0
        is_pair = all(column and row.values.get(column) for column in (config.chosen_column, config.rejected_column))
        if is_pair or isinstance(row.values.get(config.output_column or ""), str):
            return 1.0
        # Instructions beside an answer of another name would lose it.
        return 0.0 if any(row.values.get(column) for column in SURE_COMPLETIONS) else 0.5

    def _question(self, row: Row) -> str:
        config = self._config
        value = require(row, config.instruction_column, "formatter.instruction_column")
        instruction = as_text(value, Place(row.source, config.instruction_column))
        context = optional_text(row, config.input_column)
        return "\n".join(text for text in (instruction, context) if text)

    def _before(self, row: Row) -> tuple[Message, ...]:
        """The system message and the history."""
        config = self._config
        system = optional_text(row, config.system_column)
        before = () if system is None else (Message("system", system),)
        if config.history_column is None or given(row, config.history_column) in (None, ""):
            return before
        place = Place(row.source, config.history_column)
        history = from_cell(given(row, config.history_column), place, "a list of [question, answer]")
        if not isinstance(history, list | tuple):
            raise DataError(f"{place} must be a list of [question, answer], this is {kind_of(history)}")
        for index, turn in enumerate(history):
            if not isinstance(turn, list | tuple) or len(turn) != 2:
                raise DataError(f"{place.at(index)} must be [question, answer], this is {kind_of(turn)}")
            question, answer = (as_text(text, place.at(index)) for text in turn)
            before = (*before, Message("user", question), Message("assistant", answer))
        return before

    def _pair(self, row: Row) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        config = self._config
        columns = (config.chosen_column, config.rejected_column)
        if all(given(row, column) is None for column in columns):
            return (), ()
        for column, option in zip(columns, ("chosen_column", "rejected_column"), strict=True):
            require(row, column or option.removesuffix("_column"), f"formatter.{option}")
        chosen, rejected = (_text(row, column) for column in columns)
        return (Message("assistant", chosen or ""),), (Message("assistant", rejected or ""),)

    def _written_pair(self, record: Record) -> tuple[str | None, str | None]:
        if not record.chosen and not record.rejected:
            return None, None
        if not all(len(side) == 1 and isinstance(side[0].content, str) for side in (record.chosen, record.rejected)):
            raise cannot_hold(record, "alpaca", "answers of several messages or with media")
        return record.chosen[0].text, record.rejected[0].text


def _text(row: Row, column: str | None) -> str | None:
    """The text of a column, which may be empty; None when there is none."""
    value = given(row, column)
    return None if value is None else as_text(value, Place(row.source, str(column)))
