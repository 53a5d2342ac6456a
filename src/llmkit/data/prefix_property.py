"""Does a conversation's rendering begin as the rendering of its first turns does?

Where it does, prompts can be cached between turns, and each answer is trained after exactly what precedes it when it is
sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llmkit.data.codec import TextCodec
from llmkit.errors import DataError
from llmkit.types import Message

QUESTION = Message("user", "What is two and two?")
ANSWER = Message("assistant", "Two and two is four.")
REASONED = Message("assistant", "<think>\nTwo and two, that is four.\n</think>\n\nFour.")
CONVERSATIONS = {
    "plain answers": (QUESTION, ANSWER, Message("user", "And three and three?"), Message("assistant", "Six.")),
    "answers with <think> reasoning": (QUESTION, REASONED, Message("user", "And three?"), REASONED),
}


@dataclass(frozen=True)
class PrefixReport:
    """What the check found.

    Attributes:
        violations: one sentence each.
    """

    violations: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether no violation was found."""
        return not self.violations

    def __str__(self) -> str:
        if self.holds:
            return "The chat template keeps earlier turns as they are."
        return "The chat template rewrites earlier turns: " + " ".join(self.violations)


def check_prefix_property(codec: TextCodec) -> PrefixReport:
    """Render and tokenize probe conversations of one to four turns and compare their beginnings."""
    return PrefixReport(
        tuple(
            f"With {what}, {violation}."
            for what, messages in CONVERSATIONS.items()
            if (violation := _violation(codec, messages)) is not None
        )
    )


def _violation(codec: TextCodec, messages: Sequence[Message]) -> str | None:
    """The first violation in one conversation."""
    template = codec.template
    try:
        texts = [template.render(messages[:count]) for count in range(1, len(messages) + 1)]
        for count in range(1, len(messages)):
            if not texts[count].startswith(texts[count - 1]):
                return f"{count + 1} turns do not begin as {count} do"
        for count in range(1, len(messages), 2):
            if not texts[count].startswith(template.render(messages[:count], generation_prompt=True)):
                return f"the generation prompt after {count} turns is not how turn {count + 1} begins"
            prompt_ids = codec.prompt_ids(messages[:count])
            if codec.conversation_ids(messages[: count + 1])[: len(prompt_ids)] != prompt_ids:
                return f"the last token of the prompt after {count} turns runs into the first one of the answer"
    except DataError as error:
        return f"it refuses: {error}"
    return None
