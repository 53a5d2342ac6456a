"""The tokens that a chat template puts between what was sampled and what is sampled next."""

from collections.abc import Sequence

from llmkit.data.chat.prefix_property import check_prefix_property
from llmkit.data.codec import TextCodec
from llmkit.errors import DataError, ModelError
from llmkit.types import Message, Source, ToolCall

PLACEHOLDER = "answer"
"""Stands for what was sampled, so that nothing in it can change how the rest is rendered."""
WAY_OUT = (
    "choose a template that keeps earlier turns as they are: --set model.chat_template=NAME (`qwen`, ...) or =FILE"
)
PROBE_TOOLS = (
    '[{"type": "function", "function": {"name": "probe", "description": "probe", '
    '"parameters": {"type": "object", "properties": {}}}}]'
)


def stand_in(calls: Sequence[ToolCall] = ()) -> Message:
    """The assistant's message that stands for a sampled turn; of calls, templates need names and ids."""
    calls = tuple(ToolCall(call.name, "{}", call.id) for call in calls)
    return Message("assistant", "" if calls else PLACEHOLDER, tool_calls=calls)


def tokens_between(
    codec: TextCodec,
    before: Sequence[Message],
    given: Sequence[Message],
    last_token: int | None,
    *,
    tools: str | None = None,
    source: Source | None = None,
) -> list[int]:
    """What follows a sampled turn, up to where the next one begins.

    Args:
        codec: tokenizer and chat template.
        before: the conversation up to the sampled turn, which the last message stands for.
        given: what the others say next.
        last_token: the last one sampled; where that does not end the turn, the template's end of turn comes first.
        tools: JSON text of the tool schemas.
        source: where the conversation came from, for errors.
    Raises:
        ModelError: the template rewrites earlier turns, or writes no token after an answer.
        DataError: it refuses the conversation.
    """
    shown = codec.conversation_ids(before, source, tools)
    whole = codec.prompt_ids((*before, *given), source, tools)
    stops = set(codec.stop_token_ids)
    end = next((place for place in reversed(range(len(shown))) if shown[place] in stops), None)
    if end is None:
        raise ModelError(f"The chat template writes no token that ends an answer, so none can follow; {WAY_OUT}")
    if whole[: end + 1] != shown[: end + 1]:
        raise ModelError(f"The chat template rewrites an earlier turn when another follows; {WAY_OUT}")
    return whole[end + (last_token == shown[end]) :]


def check_template(codec: TextCodec, *, with_tools: bool) -> None:
    """Make sure that conversations of several turns can be made without changing what was sampled.

    Args:
        codec: tokenizer and chat template.
        with_tools: whether tools are called, too.
    Raises:
        ModelError: says what the template does, and the way out.
    """
    report = check_prefix_property(codec)
    if not report.holds:
        raise ModelError(f"{report} In a rollout of several turns, tokens that were sampled must stay; {WAY_OUT}")
    question = Message("user", "question")
    try:
        if with_tools:
            call = ToolCall("probe", "{}", call_id(0))
            result = Message("tool", "result", tool_call_id=call.id, name=call.name)
            tokens_between(codec, (question, stand_in((call,))), (result,), None, tools=PROBE_TOOLS)
        else:
            tokens_between(codec, (question, stand_in()), (Message("user", "again"),), None)
    except DataError as error:
        raise ModelError(f"The chat template cannot hold a conversation of several turns: {error}") from None


def call_id(number: int) -> str:
    """Id of a call, the same in each run: Mistral's templates take nine letters and digits, and nothing else."""
    return f"call{number:05d}"
