"""Rollouts as they are looked at, whatever a model may have sampled."""

import json
from pathlib import Path

import pytest

from llmkit.rollout.lines import encode
from llmkit.rollout.viewing.finding import Wanted, find
from llmkit.rollout.viewing.page import token_html
from llmkit.rollout.viewing.showing import Request, show
from llmkit.rollout.viewing.tokens import Token
from llmkit.testing.tiny import tiny_model


def write(path: Path, *rollouts: tuple[str, float | None]) -> Path:
    lines = [
        {
            "group_id": number, "member": 0, "prompt": "Why?", "completion": text, "reward": reward, "source": "r:1",
            "completion_length": len(text), "completion_ids": [65, 258], "loss_mask": [1, 1],
            "logprobs": [-0.1 * number, None], "versions": [3, 3], "stop_reason": "stop", "answer": None,
        }
        for number, (text, reward) in enumerate(rollouts)
    ]  # fmt: skip
    path.write_bytes(b"".join(map(encode, lines)))
    return path


def order(path: Path, name: str) -> list[int]:
    return [spot.group_id for spot in find([path], Wanted(), name).spots]  # type: ignore[arg-type]


def test_rollouts_without_a_reward_come_last_in_either_order(tmp_path: Path):
    path = write(tmp_path / "r", ("a", None), ("bb", 0.5), ("c", 1.0))
    assert order(path, "reward") == [1, 2, 0]
    assert order(path, "-reward") == [2, 1, 0]
    assert order(path, "-length")[0] == 1
    assert order(path, "logprob") == [2, 1, 0]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(min_reward=0.5), [1, 2]),
        (Wanted(max_reward=0.5), [1]),
        (Wanted(group=2), [2]),
        (Wanted(text="BB"), [1]),
        (Wanted(stop_reason="length"), []),
    ],
)
def test_only_what_is_wanted_is_found(tmp_path: Path, wanted: Wanted, expected: list[int]):
    path = write(tmp_path / "r", ("a", None), ("bb", 0.5), ("c", 1.0))
    assert [spot.group_id for spot in find([path], wanted, "file").spots] == expected


@pytest.mark.parametrize(
    "request_", [Request("file"), Request("file", as_json=True), Request("file", html=Path("p.html"))]
)
def test_what_no_terminal_can_show_is_shown_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request_: Request
):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "r", ("\ud800 \x1b[2J <b>", 1.0))
    show([path], Wanted(), request_)
    out = capsys.readouterr().out
    if request_.as_json:
        assert json.loads(out)["completion"] == "\ud800 \x1b[2J <b>"
    elif request_.html is not None:
        assert "&lt;b&gt;" in (tmp_path / "p.html").read_text()
    else:
        assert "\\xd800 \\x1b[2J <b>" in out
    assert "\x1b" not in out


def test_tokens_are_read_with_the_tokenizer_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    show([write(tmp_path / "r", ("b", 1.0))], Wanted(), Request("file", model=tiny_model()))
    assert "b<|im_end|>" in capsys.readouterr().out


def test_a_token_tells_its_probability_and_a_given_one_that_it_was():
    assert 'class="t p6" title="id 1 · p 0.607 · logprob -0.5 · version 3' in token_html(Token(1, "a", -0.5, 3))
    assert 'class="given" title="id 1 · given' in token_html(Token(1, "a", None, None))
    assert 'class="t" title="id 1 · version 3' in token_html(Token(1, "a", None, 3))
