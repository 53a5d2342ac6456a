"""Where a conversation's prompt ends and its last answer begins."""

from collections.abc import Sequence

from llmkit.types import Message, Record


def split_turns(messages: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The prompt, and the assistant's messages at the end; those are none when someone else speaks last."""
    end = len(messages)
    while end and messages[end - 1].role == "assistant":
        end -= 1
    return tuple(messages[:end]), tuple(messages[end:])


def prompt_messages(record: Record) -> tuple[Message, ...]:
    """What a policy is asked: the conversation without the assistant's messages at its end."""
    return split_turns(record.messages)[0]
