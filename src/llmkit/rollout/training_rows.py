"""Lines of rollouts as rows that `llmkit train sft` and `llmkit train dpo` read."""

from collections.abc import Mapping
from typing import Any, Literal

from llmkit import plugins
from llmkit.data.formatters.columns import Place
from llmkit.data.formatters.conversation import as_messages
from llmkit.errors import DataError
from llmkit.types import Message, Record, Sample, Source

Line = Mapping[str, Any]


def as_demonstration(line: Line, form: Literal["messages", "tokens"]) -> Mapping[str, Any]:
    """A row to fine-tune on: the conversation with its answer, or the tokens with a loss weight on what was sampled.

    Raises:
        DataError: the rollout cannot be written so.
    """
    if form == "tokens":
        token_ids = [*line["prompt_ids"], *line["completion_ids"]]
        weights = [0.0] * len(line["prompt_ids"]) + [float(mask) for mask in line["loss_mask"]]
        record = Record((), _source(line), tokens=Sample(token_ids, weights, _source(line)), extra=_extra(line))
        return _written("tokens", record)
    record = Record((*_prompt(line), _answer(line)), _source(line), tools=line["tools"], extra=_extra(line))
    return _written("messages", record)


def as_pair(chosen: Line, rejected: Line) -> Mapping[str, Any]:
    """A preference row.

    Raises:
        DataError: the rollouts cannot be written so.
    """
    extra = {
        "chosen_reward": chosen["reward"],
        "rejected_reward": rejected["reward"],
        "source": chosen["source"],
    }
    record = Record(
        _prompt(chosen),
        _source(chosen),
        chosen=(_answer(chosen),),
        rejected=(_answer(rejected),),
        tools=chosen["tools"],
        extra=extra,
    )
    return _written("preference", record)


def _written(formatter: str, record: Record) -> Mapping[str, Any]:
    front = plugins.load("formatters", formatter)
    return front.build(front.Config()).from_record(record)


def _extra(line: Line) -> dict[str, Any]:
    return {"reward": line["reward"], "source": line["source"]}


def _prompt(line: Line) -> tuple[Message, ...]:
    if not line["messages"]:
        raise DataError(f"{line['source']}: the prompt is no conversation; write --form tokens")
    return as_messages(line["messages"], Place(_source(line), "messages"))


def _answer(line: Line) -> Message:
    """The completion as one message.

    Raises:
        DataError: it was sampled in several turns, which one message cannot hold.
    """
    if 0 in line["loss_mask"]:
        raise DataError(
            f"{line['source']}: this rollout has several turns, and one answer cannot hold them; write the tokens as "
            "they were sampled: --form tokens"
        )
    return Message("assistant", line["completion"])


def _source(line: Line) -> Source:
    path, _, number = line["source"].rpartition(":")
    return Source(path, int(number)) if number.isdigit() else Source(line["source"], 0)
