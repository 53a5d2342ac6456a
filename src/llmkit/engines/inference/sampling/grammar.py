"""GBNF, the grammar notation of llama.cpp, as the Lark dialect that llguidance reads.

GBNF speaks of characters, Lark of words that a lexer cuts greedily: as words, `[a-z]+ "x"` would never end. Every
character becomes a word of its own here, so both describe the same texts.
"""

import re
from typing import NamedTuple, NoReturn

from llmkit.errors import RequestError

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
      | (?P<define>::=)
      | (?P<literal>"(?:[^"\\\n]|\\.)*")
      | (?P<chars>\[(?:[^\]\\\n]|\\.)*\])
      | (?P<times>\{\s*\d+\s*(?:,\s*\d*\s*)?\}|[*+?])
      | (?P<mark>[()|.])
      | (?P<name>[A-Za-z0-9_-]+)""",
    re.VERBOSE,
)
_CHARACTER = re.compile(r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\.|[^\\]", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def to_lark(text: str) -> str:
    """Translate a grammar whose first rule to match is `root`.

    Raises:
        RequestError: with line and column of what cannot be read.
    """
    return _Translation(text).lark()


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


class _Translation:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._read()
        self._next = 0
        self._rules: dict[str, str] = {}
        self._references: dict[str, _Token] = {}

    def lark(self) -> str:
        while self._peek().kind != "end":
            self._rule()
        for name, token in self._references.items():
            if name not in self._rules:
                self._fail(token, f"no rule is named {name!r}; there are {', '.join(self._rules)}")
        if "root" not in self._rules:
            self._fail(self._peek(), "no rule is named 'root', which is where a grammar begins")
        names = {name: f"r{number}" for number, name in enumerate(self._rules)} | {"root": "start"}
        rules = [f"{names[name]}: {body}" for name, body in self._rules.items()]
        return re.sub(r"<([A-Za-z0-9_-]+)>", lambda match: names[match[1]], "\n".join(rules)) + "\n"

    def _read(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                unclosed = {'"': 'a string that no " closes', "[": "a class that no ] closes"}
                found = unclosed.get(self._text[at], f"unexpected {self._text[at]!r}")
                self._fail(_Token("bad", self._text[at], at), found)
            if match.lastgroup != "space":
                tokens.append(_Token(str(match.lastgroup), match[0], at))
            at = match.end()
        end = _Token("end", "the end", len(self._text))
        return [*tokens, end, end]

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _fail(self, token: _Token, problem: str) -> NoReturn:
        line = self._text.count("\n", 0, token.start) + 1
        column = token.start - self._text.rfind("\n", 0, token.start)
        raise RequestError(f"grammar:{line}:{column}: {problem}")

    def _rule(self) -> None:
        name, define = self._take(), self._take()
        if name.kind != "name" or define.kind != "define":
            wrong = name if name.kind != "name" else define
            self._fail(wrong, f"expected a rule such as 'root ::= \"a\"', found {wrong.text!r}")
        if name.text in self._rules:
            self._fail(name, f"the rule {name.text!r} is there twice")
        self._rules[name.text] = self._alternatives()

    def _alternatives(self) -> str:
        alternatives = [self._sequence()]
        while self._peek().text == "|":
            self._take()
            alternatives.append(self._sequence())
        return " | ".join(alternatives)

    def _sequence(self) -> str:
        items: list[str] = []
        while (token := self._peek()).kind != "end" and token.text not in ("|", ")"):
            if token.kind == "name" and self._tokens[self._next + 1].kind == "define":
                break
            items.append(self._item())
        return " ".join(items) or '""'

    def _item(self) -> str:
        item = self._atom(self._take())
        while self._peek().kind == "times":
            times = "".join(self._take().text.split())
            item = f"({item}){times}"
        return item

    def _atom(self, token: _Token) -> str:
        if token.kind == "name":
            self._references.setdefault(token.text, token)
            return f"<{token.text}>"
        if token.kind == "literal":
            points = self._points(token)
            return f"({' '.join(f'/{_escaped(point)}/' for point, _ in points)})" if points else '""'
        if token.kind == "chars":
            return self._class(token)
        if token.text == ".":
            return "/(?s:.)/"
        if token.text != "(":
            self._fail(token, f"unexpected {token.text!r}")
        inside = self._alternatives()
        if self._peek().text != ")":
            self._fail(token, "a ( that no ) closes")
        self._take()
        return f"({inside})"

    def _class(self, token: _Token) -> str:
        points = self._points(token)
        negated = bool(points) and points[0] == (ord("^"), False)
        rest = points[1:] if negated else points
        parts: list[str] = []
        while rest:
            first = last = rest[0][0]
            if len(rest) > 2 and rest[1] == (ord("-"), False):
                last = rest[2][0]
                rest = rest[2:]
            if last < first:
                self._fail(token, f"the range {chr(first)!r} to {chr(last)!r} runs backwards")
            parts.append(f"{_escaped(first)}-{_escaped(last)}" if last > first else _escaped(first))
            rest = rest[1:]
        if not parts:
            self._fail(token, "a class without characters, which nothing can match")
        return f"/[{'^' * negated}{''.join(parts)}]/"

    def _points(self, token: _Token) -> list[tuple[int, bool]]:
        """Code points between the delimiters, and whether each was escaped."""
        return [(self._point(match[0], token), match[0][0] == "\\") for match in _CHARACTER.finditer(token.text[1:-1])]

    def _point(self, text: str, token: _Token) -> int:
        if text[0] != "\\":
            return ord(text)
        if len(text) > 2:
            point = int(text[2:], 16)
            if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
                self._fail(token, f"{text} is no character")
            return point
        if text[1] in _ESCAPES:
            return ord(_ESCAPES[text[1]])
        if text[1] not in "\"\\[]-^'/":
            self._fail(token, rf"unknown escape {text!r}; there are \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH")
        return ord(text[1])


def _escaped(point: int) -> str:
    return f"\\x{{{point:x}}}"
