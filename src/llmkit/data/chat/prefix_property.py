"""Does a conversation's rendering begin as the rendering of its first turns does?

Where it does, prompts can be cached between turns, and each answer is trained after exactly what precedes it when it is
sampled.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from llmkit.data.chat.template_abilities import TOOLS, TemplateAbilities
from llmkit.data.chat.template_input import Chat
from llmkit.data.codec import TextCodec
from llmkit.errors import DataError
from llmkit.types import Message, ToolCall

QUESTION = Message("user", "What is two and two?")
ANSWER = Message("assistant", "Two and two is four.")
AGAIN = Message("user", "And three and three?")
THOUGHT = "Two and two, that is four."
TAGGED = Message("assistant", f"<think>\n{THOUGHT}\n</think>\n\nFour.")
REASONED = Message("assistant", "Four.", reasoning=THOUGHT)
CALL = Message("assistant", "", tool_calls=(ToolCall("add", '{"a": 2, "b": 2}', "call_add1"),))
RESULT = Message("tool", "4", tool_call_id="call_add1", name="add")


@dataclass(frozen=True)
class PrefixReport:
    """What the check found.

    Attributes:
        violations: one sentence each.
        has_template: whether there was a chat template to check.
    """

    violations: tuple[str, ...]
    has_template: bool = True

    @property
    def holds(self) -> bool:
        """Whether no violation was found."""
        return not self.violations

    def __str__(self) -> str:
        """The verdict in one line."""
        if not self.has_template:
            return "The tokenizer has no chat template: rows of plain text or tokens can be trained, messages cannot."
        if self.holds:
            return "The chat template keeps earlier turns as they are."
        return "The chat template rewrites earlier turns: " + " ".join(self.violations)


def check_prefix_property(codec: TextCodec) -> PrefixReport:
    """Render and tokenize probe conversations turn by turn and compare their beginnings.

    Reasoning and calls of tools are probed where the template has a place for them.
    """
    if not codec.template.exists:
        return PrefixReport((), has_template=False)
    found = [(what, _violation(codec, chat)) for what, chat in _probes(codec)]
    return PrefixReport(tuple(f"With {what}, {violation}." for what, violation in found if violation is not None))


def _probes(codec: TextCodec) -> Iterator[tuple[str, Chat]]:
    abilities = TemplateAbilities(codec.template)
    yield "plain answers", Chat((QUESTION, ANSWER, AGAIN, Message("assistant", "Six.")))
    yield "answers with <think> reasoning", Chat((QUESTION, TAGGED, AGAIN, TAGGED))
    optional = []
    if abilities.reasoning:
        optional.append(("reasoning apart from the answer", Chat((QUESTION, REASONED, AGAIN, REASONED))))
    if abilities.tool_calls:
        tools = TOOLS if abilities.tools else None
        messages = (QUESTION, CALL, RESULT, ANSWER, AGAIN, CALL, RESULT, ANSWER)
        optional.append(("calls of tools", Chat(messages, tools)))
    yield from ((what, chat) for what, chat in optional if _is_rendered(codec, chat))


def _is_rendered(codec: TextCodec, chat: Chat) -> bool:
    """Whether the template takes a conversation of this kind at all; rows of it are refused where it does not."""
    try:
        codec.template.render_chat(chat)
    except DataError:
        return False
    return True


def _violation(codec: TextCodec, chat: Chat) -> str | None:
    """The first violation in one conversation."""
    template, length = codec.template, len(chat.messages)
    try:
        texts = [template.render_chat(chat.first(count)) for count in range(1, length + 1)]
        for count in range(1, length):
            if not texts[count].startswith(texts[count - 1]):
                return f"{count + 1} turns do not begin as {count} do"
        for count in (index for index, message in enumerate(chat.messages) if message.role == "assistant"):
            before = chat.first(count)
            if not texts[count].startswith(template.render_chat(before, generation_prompt=True)):
                return f"the generation prompt after {count} turns is not how turn {count + 1} begins"
            prompt_ids = codec.prompt_ids(before.messages, tools=chat.tools)
            whole = codec.conversation_ids(chat.first(count + 1).messages, tools=chat.tools)
            if whole[: len(prompt_ids)] != prompt_ids:
                return f"the last token of the prompt after {count} turns runs into the first one of the answer"
    except DataError as error:
        return f"it refuses: {error}"
    return None
