"""How formats spell the turns of a conversation: their keys and their roles."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from llmkit.data.formatters.columns import Place
from llmkit.errors import DataError
from llmkit.types import Role

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "observation": "tool",
    "observations": "tool",
}
"""Every spelling of a role, and the role it means."""
CALLS = frozenset({"function_call", "tool_call"})
"""Spellings of the assistant for a turn whose text is a call of tools, written as JSON."""


@dataclass(frozen=True)
class TurnForm:
    """The keys and words of one format.

    Attributes:
        role_key: says who speaks.
        content_key: what is said.
        roles: spellings, in small letters, and the roles they mean.
        calls: those of them whose text is a call of tools.
    """

    role_key: str
    content_key: str
    roles: Mapping[str, Role] = field(default_factory=lambda: ROLES)
    calls: frozenset[str] = CALLS

    def role(self, item: Mapping[str, Any], place: Place) -> tuple[Role, bool]:
        """Who speaks in a turn, and whether its text is a call of tools.

        Raises:
            DataError: the role is unknown.
        """
        spelling = item.get(self.role_key)
        word = spelling.strip().lower() if isinstance(spelling, str) else ""
        if word in self.roles:
            return self.roles[word], word in self.calls
        close = get_close_matches(word, self.roles, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        known = ", ".join(dict.fromkeys(self.roles.values()))
        raise DataError(f"{place} has the role {spelling!r}; known roles: {known}.{hint}")


OPENAI = TurnForm("role", "content")
SHAREGPT = TurnForm("from", "value")


def form_of(item: Mapping[str, Any]) -> TurnForm:
    """The form of a turn, told by its keys."""
    return SHAREGPT if "from" in item and "role" not in item else OPENAI


def form_with(role_key: str, content_key: str, tags: Mapping[str, Role], calls: str | None) -> TurnForm:
    """A form with words of its own beside the known ones.

    Args:
        role_key: says who speaks.
        content_key: what is said.
        tags: words and the roles they mean.
        calls: the word for a turn whose text is a call of tools; None knows the usual ones only.
    """
    roles: dict[str, Role] = {**ROLES, **{tag.lower(): role for tag, role in tags.items()}}
    # A word that is given another meaning loses its former one.
    call_words = CALLS - {tag.lower() for tag in tags}
    if calls is not None:
        roles[calls.lower()] = "assistant"
        call_words |= {calls.lower()}
    return TurnForm(role_key, content_key, roles, frozenset(call_words))
