"""Read `{"name": ..., "arguments": {...}}` while it is written, character by character."""

import json
from collections.abc import Callable

from llmkit.data.chat.parsing.pieces import CallDelta

ARGUMENT_KEYS = ("arguments", "parameters")
DONE, BROKEN = "done", "broken"


class CallReader:
    """One call; its arguments are given on as they come, once the name is known.

    Attributes:
        raw: the object's text so far.
        state: empty while it goes on, `done` when the object has closed, `broken` when it is no call.
    """

    def __init__(self, index: int, emit: Callable[[CallDelta], None]) -> None:
        self.raw = ""
        self.state = ""
        self._index = index
        self._emit = emit
        self._depth = 0
        self._in_string = self._escaped = False
        self._string_start = 0
        self._key: str | None = None
        self._value_start: int | None = None
        self._name: str | None = None
        self._arguments = ""
        self._num_emitted = 0

    @property
    def has_begun(self) -> bool:
        """Whether anything of the call was given on."""
        return self._name is not None

    def feed(self, text: str) -> str:
        """Take text up to the object's end; what is behind it comes back."""
        for place, character in enumerate(text):
            if self.state:
                return text[place:]
            if not self.raw and character.isspace():
                continue
            if not self.raw and character != "{":
                self.state = BROKEN
                return text[place:]
            self.raw += character
            self._step(character)
        self._give_arguments()
        return ""

    def _step(self, character: str) -> None:
        position = len(self.raw) - 1
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
                self._end_string(position)
            return
        if self._depth == 1 and self._key is not None and self._value_start is None:
            if character == ":" or character.isspace():
                return
            self._value_start = position
        if character == '"':
            self._in_string, self._string_start = True, position
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            if self._depth == 1:
                self._end_value(position)
                self._close()
                return
            self._depth -= 1
            if self._depth == 1:
                self._end_value(position + 1)
        elif character == "," and self._depth == 1:
            self._end_value(position)
            self._key = None

    def _end_string(self, position: int) -> None:
        if self._depth != 1:
            return
        if self._value_start is not None:
            self._end_value(position + 1)
        elif self._key is None:
            self._key = _loads(self.raw[self._string_start : position + 1])

    def _end_value(self, end: int) -> None:
        """The value of the current key is whole."""
        if self._value_start is None:
            return
        value = self.raw[self._value_start : end].strip()
        if self._key == "name" and self._name is None:
            name = _loads(value)
            if isinstance(name, str) and name:
                self._name = name
                self._emit(CallDelta(self._index, name))
        elif self._key in ARGUMENT_KEYS:
            # Some models write the arguments as JSON inside a string.
            text = _loads(value) if value.startswith('"') else value
            self._arguments = "{}" if text == "null" else str(text)
        self._value_start = None
        self._key = ""
        self._give_arguments()

    def _give_arguments(self) -> None:
        """Give on what is known of the arguments and was not given on."""
        if self._name is None:
            return
        known = self._arguments
        if not known and self._key in ARGUMENT_KEYS and self._value_start is not None:
            known = self.raw[self._value_start :]
            if not known.startswith("{"):
                return
        if len(known) > self._num_emitted:
            self._emit(CallDelta(self._index, arguments=known[self._num_emitted :]))
            self._num_emitted = len(known)

    def _close(self) -> None:
        if self._name is None:
            self.state = BROKEN
            return
        if not self._num_emitted:
            self._emit(CallDelta(self._index, arguments="{}"))
        self.state = DONE


class ArgumentsReader:
    """A call whose name is known: the arguments alone, as they are written.

    Attributes:
        raw: the object's text so far.
        state: empty while it goes on, `done` when the object has closed.
    """

    has_begun = True

    def __init__(self, index: int, name: str, emit: Callable[[CallDelta], None]) -> None:
        self.raw = ""
        self.state = ""
        self._index = index
        self._emit = emit
        self._depth = 0
        self._in_string = self._escaped = False
        emit(CallDelta(index, name))

    def feed(self, text: str) -> str:
        """Take text up to the object's end; what is behind it comes back."""
        end = next((place + 1 for place, character in enumerate(text) if self._closes(character)), len(text))
        if end:
            self.raw += text[:end]
            self._emit(CallDelta(self._index, arguments=text[:end]))
        return text[end:]

    def _closes(self, character: str) -> bool:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            else:
                self._escaped, self._in_string = character == "\\", character != '"'
            return False
        self._in_string = character == '"'
        self._depth += (character in "{[") - (character in "}]")
        if self._depth == 0 and character in "}]":
            self.state = DONE
        return bool(self.state)


def _loads(text: str) -> str | None:
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
