import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from llmkit.config.section import Section
from llmkit.data.preparing.cache_key import cache_key, identify

FAKES = Path(__file__).parent.parent / "fakes"


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    monkeypatch.syspath_prepend(str(FAKES))
    import character_encoding

    return character_encoding


class Config(Section):
    column: str = "text"
    limit: int = 3
    words: frozenset[str] = frozenset({"a", "b", "c"})


class Plain:
    def __init__(self, **attributes):
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("column", "other")

    def __init__(self, column):
        self.column = column


class Speaking(Plain):
    def fingerprint(self):
        return "what decides"


def test_formatters_with_other_options_are_others():
    assert identify(Plain(_config=Config())) == identify(Plain(_config=Config(column="text")))
    assert identify(Plain(_config=Config())) != identify(Plain(_config=Config(column="other")))
    assert identify(Plain(columns=("a", "b"))) != identify(Plain(columns=("b", "a")))
    assert identify(Plain(columns=["a"])) != identify(Plain(rows=["a"]))
    assert identify(Slotted("a")) != identify(Slotted("b"))
    assert identify(Plain(inner=Slotted("a"))) != identify(Plain(inner=Slotted("b")))
    assert identify(Plain(pattern=re.compile("a"))) != identify(Plain(pattern=re.compile("a", re.IGNORECASE)))
    assert identify(Plain(read=partial(int, base=2))) != identify(Plain(read=partial(int, base=3)))
    assert identify(Plain(path=Path("a"))) != identify(Plain(path=Path("b")))
    assert identify(Plain(read=len)) != identify(Plain(read=max))


def test_a_formatter_that_says_what_decides_is_asked():
    assert identify(Speaking(attempt=1)) == identify(Speaking(attempt=2))
    assert identify(Speaking()) != identify(Plain())


def test_what_cannot_be_told_from_another_has_no_identity(tmp_path):
    itself = Plain()
    itself.me = itself
    with (tmp_path / "file").open("w") as file:
        for unknown in (lambda row: row, file, itself):
            assert identify(Plain(value=unknown)) is None


def test_without_an_identity_there_is_no_key(fakes):
    texts, formatter, encoder = fakes.Texts(["a"]), fakes.TextFormatter(), fakes.CharacterEncoder()
    assert cache_key(texts, formatter, encoder, [1]) is not None
    assert cache_key(fakes.NamelessTexts(["a"]), formatter, encoder, [1]) is None
    formatter.read = lambda row: row
    assert cache_key(texts, formatter, encoder, [1]) is None


def test_everything_that_decides_changes_the_key(fakes):
    def key(text="a", formatter=None, encoder=None, version=1):
        return cache_key(
            fakes.Texts([text]), formatter or fakes.TextFormatter(), encoder or fakes.CharacterEncoder(), [version]
        )

    assert key() == key()
    others = [key("b"), key(formatter=Speaking()), key(encoder=fakes.CharacterEncoder(split=True)), key(version=2)]
    assert len({key(), *others}) == 5


def test_other_code_is_another_key(tmp_path):
    # A formatter from elsewhere, with the same name and attributes but another source.
    script = (
        "import sys; from character_encoding import *; from elsewhere import Reader; "
        "from llmkit.data.preparing.cache_key import cache_key; "
        "print(cache_key(Texts(['a']), Reader(), CharacterEncoder(), [1]))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FAKES), str(tmp_path), *sys.path])}
    keys = []
    for source in ("class Reader: pass", "class Reader:\n    version = 2", "class Reader: pass"):
        (tmp_path / "elsewhere.py").write_text(source)
        command = [sys.executable, "-B", "-c", script]
        keys.append(subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout)
    # The second run differs; the third is another process with another order of sets, and the same key.
    assert keys[0] == keys[2] != keys[1]


def test_the_identity_is_the_same_in_every_process():
    script = (
        "import json; from llmkit.data.preparing.cache_key import identify; "
        "from character_encoding import TextFormatter; "
        "reader = TextFormatter(); reader.words = {'a', 'b', 'c', 'd', 'e'}; print(json.dumps(identify(reader)))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FAKES), *sys.path])}
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(told) == 1
