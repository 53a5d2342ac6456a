"""Question and answer, as GSM8K writes them: the worked answer ends in `#### N`."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.config.section import Section
from llmkit.data.formatters.columns import Place, as_text, others, require
from llmkit.data.formatters.holding import cannot_hold, refuse_unheld, with_extra
from llmkit.data.formatters.rows import refuse_beyond_text, share
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
        """Share of rows that have both columns and are no preference pair."""
        return share(rows, self._fits)

    def to_record(self, row: Row) -> Record:
        """Read one row; columns beside question and answer go to `extra`."""
        config = self._config
        refuse_beyond_text(row, "question_answer")
        question = self._text(row, config.question_column, "formatter.question_column")
        worked = self._text(row, config.answer_column, "formatter.answer_column")
        system = () if config.system_prompt is None else (Message("system", config.system_prompt),)
        messages = (*system, Message("user", question + config.suffix), Message("assistant", worked))
        extra = others(row, {config.question_column, config.answer_column})
        return Record(messages, row.source, answer=final_answer(worked), extra=extra)

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write question and answer, without the system prompt and the suffix that `to_record` adds."""
        config = self._config
        refuse_unheld(record, "question_answer", ("a reference answer",))
        roles = [message.role for message in record.messages]
        if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
            raise cannot_hold(record, "question_answer", f"a conversation of {', '.join(roles) or 'no messages'}")
        *before, question, answer = record.messages
        if [message.text for message in before] != ([] if config.system_prompt is None else [config.system_prompt]):
            raise cannot_hold(record, "question_answer", "a system message other than its option 'system_prompt'")
        if not question.text.endswith(config.suffix):
            raise cannot_hold(record, "question_answer", "a question without its option 'suffix'")
        if record.answer is not None and record.answer != final_answer(answer.text):
            raise DataError(
                f"{record.source}: the reference answer {record.answer!r} is not the worked answer's own, "
                f"{final_answer(answer.text)!r}; write it as 'messages'"
            )
        text = question.text.removesuffix(config.suffix)
        row = {config.question_column: text, config.answer_column: answer.text}
        return with_extra(row, record, "question_answer", ())

    def _fits(self, row: Row) -> bool:
        texts = (row.values.get(self._config.question_column), row.values.get(self._config.answer_column))
        is_pair = {"chosen", "rejected"} <= row.values.keys()
        return not is_pair and all(isinstance(text, str | int | float) for text in texts)

    @staticmethod
    def _text(row: Row, column: str, option: str) -> str:
        return as_text(require(row, column, option), Place(row.source, column))
