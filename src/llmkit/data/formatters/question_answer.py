"""Question and answer, as GSM8K writes them: the worked answer ends in `#### N`."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.config.section import Section
from llmkit.data.formatters.fields import Place, as_text, others, require
from llmkit.errors import DataError
from llmkit.types import Message, Record, Row

MARKER = "####"
"""What stands before the final answer in a worked one."""


class Config(Section):
    """The user asks the question, the assistant works out the answer; rewards get the final answer alone."""

    question_column: str = "question"
    """Column with the question."""
    answer_column: str = "answer"
    """Column with the worked answer; what follows its last `####`, or all of it, is the reference answer."""
    system_prompt: str | None = None
    """A system message put before every question."""
    suffix: str = ""
    """Appended to every question as it is, so begin it with a space or a line break."""


def build(config: Config) -> "QuestionAnswer":
    """Make the formatter."""
    return QuestionAnswer(config)


def final_answer(worked: str) -> str:
    """What follows the last `####`; the whole answer when there is none."""
    return worked.rsplit(MARKER, 1)[-1].strip()


class QuestionAnswer:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows that have both columns."""
        columns = {self._config.question_column, self._config.answer_column}
        return sum(all(isinstance(row.values.get(c), str | int | float) for c in columns) for row in rows) / max(
            len(rows), 1
        )

    def to_record(self, row: Row) -> Record:
        """Read one row; columns beside question and answer go to `extra`."""
        config = self._config
        question = self._text(row, config.question_column, "formatter.question_column")
        worked = self._text(row, config.answer_column, "formatter.answer_column")
        system = () if config.system_prompt is None else (Message("system", config.system_prompt),)
        messages = (*system, Message("user", question + config.suffix), Message("assistant", worked))
        extra = others(row, {config.question_column, config.answer_column})
        return Record(messages, row.source, answer=final_answer(worked), extra=extra)

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write question and answer, without the system prompt and the suffix that `to_record` adds."""
        config = self._config
        *before, question, answer = self._turns(record)
        if [message.text for message in before] != ([] if config.system_prompt is None else [config.system_prompt]):
            raise DataError(
                f"{record.source}: 'question_answer' holds one question and one answer; write it as 'messages'"
            )
        if record.answer is not None and record.answer != final_answer(answer.text):
            raise DataError(
                f"{record.source}: the reference answer {record.answer!r} is not the worked answer's own, "
                f"{final_answer(answer.text)!r}; write it as 'messages'"
            )
        text = question.text.removesuffix(config.suffix)
        return {config.question_column: text, config.answer_column: answer.text, **record.extra}

    @staticmethod
    def _text(row: Row, column: str, option: str) -> str:
        return as_text(require(row, column, option), Place(row.source, column))

    @staticmethod
    def _turns(record: Record) -> tuple[Message, ...]:
        roles = [message.role for message in record.messages]
        weighted = any(message.weight is not None for message in record.messages)
        if roles not in (["user", "assistant"], ["system", "user", "assistant"]) or weighted or record.chosen:
            raise DataError(
                f"{record.source}: 'question_answer' holds one question and one answer without weights; this record "
                f"has {', '.join(roles) or 'no messages'}{' with weights' if weighted else ''}; write it as 'messages'"
            )
        return record.messages
