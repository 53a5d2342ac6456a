"""How families of models write calls of tools."""

from llmkit.data.chat.parsing.call_reader import BROKEN, ArgumentsReader, CallReader
from llmkit.data.chat.parsing.pieces import CallDelta, Piece, held_back


class Calls:
    """Reads calls one after another into pieces."""

    def __init__(self) -> None:
        self.count = 0
        self.reader: CallReader | ArgumentsReader | None = None
        self._piece = Piece()

    def begin(self, piece: Piece, name: str = "") -> None:
        """A call comes: an object with name and arguments, or the arguments alone when the name is known."""
        self._piece = piece

        def emit(delta: CallDelta) -> None:
            self._piece.calls.append(delta)

        self.reader = ArgumentsReader(self.count, name, emit) if name else CallReader(self.count, emit)

    def feed(self, text: str, piece: Piece) -> str:
        """Give text to the current call; what is behind its end comes back."""
        assert self.reader is not None, "`begin` was called"
        self._piece = piece
        return self.reader.feed(text)

    def end(self) -> None:
        """The current call is over."""
        self.count += 1
        self.reader = None


class Hermes:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, several in a row: Hermes, Qwen 2.5 and 3."""

    OPEN, CLOSE = "<tool_call>", "</tool_call>"
    special_marker: str | None = None

    def __init__(self) -> None:
        self._calls = Calls()
        self._pending = ""
        self._after_call = False

    def push(self, text: str) -> Piece:
        """See `Parser`."""
        self._pending += text
        piece = Piece()
        while self._pending and (self._text(piece) if self._calls.reader is None else self._call(piece)):
            pass
        return piece

    def finish(self) -> Piece:
        """See `Parser`."""
        piece = Piece()
        reader = self._calls.reader
        if reader is None:
            self._say(piece, self._pending)
        elif not reader.has_begun:
            piece.content = self.OPEN + reader.raw + self._pending
        self._pending = ""
        return piece

    def _text(self, piece: Piece) -> bool:
        start = self._pending.find(self.OPEN)
        if start >= 0:
            self._say(piece, self._pending[:start])
            self._pending = self._pending[start + len(self.OPEN) :]
            self._calls.begin(piece)
            return True
        kept = held_back(self._pending, self.OPEN)
        shown, self._pending = self._pending[: len(self._pending) - kept], self._pending[len(self._pending) - kept :]
        self._say(piece, shown)
        return False

    def _say(self, piece: Piece, text: str) -> None:
        if self._after_call:  # white space between calls is layout
            text = text.lstrip()
            self._after_call = not text
        piece.content += text

    def _call(self, piece: Piece) -> bool:
        reader = self._calls.reader
        assert reader is not None
        self._pending = self._calls.feed(self._pending, piece)
        if not reader.state:
            return False
        if reader.state == BROKEN:  # no call at all: it is shown as it was written
            piece.content += self.OPEN + reader.raw
            self._calls.reader = None
            return True
        end = self._pending.find(self.CLOSE)
        rest = self._pending.lstrip()
        if end < 0 and self.CLOSE.startswith(rest):
            return False
        self._pending = self._pending[end + len(self.CLOSE) :] if end >= 0 else rest
        self._after_call = True
        self._calls.end()
        return True


class Llama3:
    """`{"name": ..., "parameters": {...}}` in place of an answer, several with `;` between: Llama 3.1 and later."""

    MARKER = "<|python_tag|>"
    special_marker: str | None = MARKER

    def __init__(self) -> None:
        self._calls = Calls()
        self._pending = ""
        self._is_text: bool | None = None

    def push(self, text: str) -> Piece:
        """See `Parser`."""
        self._pending += text
        piece = Piece()
        if self._is_text is None:
            start = self._pending.lstrip()
            if not start or (self.MARKER.startswith(start) and start != self.MARKER):
                return piece
            start = start.removeprefix(self.MARKER).lstrip()
            if not start:
                return piece
            self._is_text = not start.startswith("{")
            self._pending = self._pending if self._is_text else start
        if self._is_text:
            piece.content, self._pending = self._pending, ""
            return piece
        while self._pending and self._call(piece):
            pass
        return piece

    def finish(self) -> Piece:
        """See `Parser`."""
        reader = self._calls.reader
        if reader is not None and not reader.has_begun:
            return Piece(content=reader.raw + self._pending)
        return Piece(content=self._pending if self._calls.count == 0 and reader is None else "")

    def _call(self, piece: Piece) -> bool:
        if self._calls.reader is None:
            self._pending = self._pending.lstrip("; \n")
            if not self._pending:
                return False
            self._calls.begin(piece)
        reader = self._calls.reader
        assert reader is not None
        self._pending = self._calls.feed(self._pending, piece)
        if reader.state == BROKEN:  # JSON, but no call
            piece.content += reader.raw + self._pending
            self._pending, self._is_text, self._calls.reader = "", True, None
            return False
        if reader.state:
            self._calls.end()
            return True
        return False


class Mistral:
    """`[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]`, or `[TOOL_CALLS]name{...}` of newer ones."""

    MARKER = "[TOOL_CALLS]"
    special_marker: str | None = MARKER

    def __init__(self) -> None:
        self._calls = Calls()
        self._pending = ""
        self._in_calls = False

    def push(self, text: str) -> Piece:
        """See `Parser`."""
        self._pending += text
        piece = Piece()
        if not self._in_calls:
            start = self._pending.find(self.MARKER)
            end = start if start >= 0 else len(self._pending) - held_back(self._pending, self.MARKER)
            piece.content = self._pending[:end]
            self._pending = self._pending[end:]
            self._in_calls = start >= 0
            if self._in_calls:
                self._pending = self._pending.removeprefix(self.MARKER)
        while self._in_calls and self._pending and self._call(piece):
            pass
        return piece

    def finish(self) -> Piece:
        """See `Parser`."""
        reader = self._calls.reader
        if reader is not None and not reader.has_begun:
            return Piece(content=self.MARKER + reader.raw + self._pending)
        return Piece(content=self._pending if reader is None and self._pending.strip(" ],\n") else "")

    def _call(self, piece: Piece) -> bool:
        if self._calls.reader is None:
            # The marker, commas and brackets between calls are layout.
            text = self._pending.lstrip("], \n")
            if self.MARKER.startswith(text):  # it may go on
                return False
            text = text.removeprefix(self.MARKER).lstrip("[ \n")
            brace = text.find("{")
            if brace < 0:
                self._pending = text
                return False
            name = text[:brace].removesuffix("[ARGS]").strip()
            self._calls.begin(piece, name)
            self._pending = text[brace:]
        reader = self._calls.reader
        assert reader is not None
        self._pending = self._calls.feed(self._pending, piece)
        if reader.state == BROKEN:
            piece.content += self.MARKER + reader.raw + self._pending
            self._pending, self._in_calls, self._calls.reader = "", False, None
            return False
        if reader.state:
            self._calls.end()
            return True
        return False


class Forced:
    """`[{"name": ..., "parameters": {...}}, ...]`: what a structure makes every model write when it must call."""

    special_marker: str | None = None

    def __init__(self) -> None:
        self._calls = Calls()
        self._pending = ""

    def push(self, text: str) -> Piece:
        """See `Parser`."""
        self._pending += text
        piece = Piece()
        while self._pending:
            if self._calls.reader is None:
                self._pending = self._pending.lstrip("[], \n\t\r")
                if not self._pending:
                    break
                self._calls.begin(piece)
            reader = self._calls.reader
            assert reader is not None
            self._pending = self._calls.feed(self._pending, piece)
            if reader.state == BROKEN:
                piece.content += reader.raw + self._pending
                self._pending, self._calls.reader = "", None
            elif reader.state:
                self._calls.end()
        return piece

    def finish(self) -> Piece:
        """See `Parser`."""
        reader = self._calls.reader
        return Piece(content=reader.raw if reader is not None and not reader.has_begun else "")


PARSERS: dict[str, type[Hermes] | type[Llama3] | type[Mistral]] = {
    "hermes": Hermes,
    "llama3": Llama3,
    "mistral": Mistral,
}
"""By the name that `tool_parser` has."""
TELLTALES = {"hermes": "<tool_call>", "llama3": "<|python_tag|>", "mistral": "[TOOL_CALLS]"}
"""What a chat template has in it whose model writes calls so."""


def find_parser(setting: str, templates: tuple[str, ...]) -> str | None:
    """The parser's name; of `auto`, the one whose marker is in the chat template."""
    if setting == "none":
        return None
    if setting != "auto":
        return setting
    text = "\n".join(templates)
    return next((name for name, telltale in TELLTALES.items() if telltale in text), None)
