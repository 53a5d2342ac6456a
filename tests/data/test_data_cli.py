"""`llmkit data inspect` and `llmkit data stats`, with tokens that can be counted by hand: one for each byte."""

import json
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llmkit import cli
from llmkit.testing.tiny import tiny_model

Run = Callable[..., tuple[str, str]]
TEMPLATE = {"user": 6 + 1, "assistant": 11 + 1, "system": 8 + 1}
"""Tokens around a message: `<|im_start|>`, the role and a line break before it, a line break after it."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `llmkit data ...` with the model of bytes; returns standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object, code: int = 0, model: str | None = None) -> tuple[str, str]:
        capsys.readouterr()
        found = cli.run(["data", *map(str, arguments), "--model", model or tiny_model()])
        out, err = capsys.readouterr()
        assert found == code, f"exit code {found}\n{err}\n{out}"
        assert "Traceback" not in err
        return out, err

    return run


def chat(*turns: str, **more: object) -> dict[str, object]:
    """A row in the OpenAI format of `role:content` turns."""
    return {"messages": [dict(zip(("role", "content"), turn.split(":", 1), strict=True)) for turn in turns], **more}


def write(path: str, rows: Sequence[Mapping[str, object]]) -> str:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def num_tokens(*turns: str) -> int:
    """Tokens of `role:content` turns: their bytes, what stands around them, and what ends each."""
    parts = (turn.split(":", 1) for turn in turns)
    return sum(TEMPLATE[role] + len(content.encode()) + 1 for role, content in parts)


class TestInspect:
    def test_trained_tokens_stand_between_guillemets(self, run: Run):
        out, err = run("inspect", write("a.jsonl", [chat("user:Say ba.", "assistant:ba")]), "--limit", 0)
        # 7 + 7 + 1 tokens of the question, 12 + 2 + 1 of the answer, of which `ba` and its end train.
        assert "row 1  a.jsonl:1  30 tokens, 3 train (10%)" in out
        assert "<|im_start|>user\nSay ba.<|im_end|>\n" in out
        assert "<|im_start|>assistant\n«ba<|im_end|>»\n" in out
        assert "user · 15 tokens" in out
        assert "assistant · 15 tokens, 3 train (20%)" in out
        assert "dataset 'files' of 1 row, formatter 'messages'" in err

    def test_another_weight_is_told_behind_the_tokens(self, run: Run):
        row = chat("user:a", "assistant:b")
        row["messages"][1]["weight"] = 0.5  # type: ignore[index]
        out, _ = run("inspect", write("a.jsonl", [row]), "--limit", 0)
        assert "«b<|im_end|>»×0.5" in out

    def test_guillemets_of_the_text_are_no_marks(self, run: Run):
        out, _ = run("inspect", write("a.jsonl", [chat("user:«a»", "assistant:b")]), "--limit", 0)
        assert "\\xaba\\xbb<|im_end|>" in out

    def test_control_characters_are_spelled_out(self, run: Run):
        out, _ = run("inspect", write("a.jsonl", [chat("user:\x1b[2Ja", "assistant:b")]), "--limit", 0)
        assert "\\x1b[2Ja<|im_end|>" in out
        assert "\x1b" not in out

    def test_a_terminal_gets_colours_and_no_guillemets(self, run: Run, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        out, _ = run("inspect", write("a.jsonl", [chat("user:a", "assistant:b")]), "--limit", 0)
        assert "\x1b[1;32mb" in out
        assert "«" not in out

    def test_the_first_rows_or_those_that_are_named(self, run: Run):
        path = write("a.jsonl", [chat(f"user:{index}", "assistant:b") for index in range(1, 7)])
        shown = lambda *more: [row["row"] for row in json.loads(run("inspect", path, "--json", *more)[0])["rows"]]  # noqa: E731
        assert shown() == [1, 2, 3]
        assert shown("--rows", 2) == [1, 2]
        assert shown("--row", 5, "--row", 2) == [5, 2]
        drawn = shown("--sample", "--seed", 1)
        assert len(set(drawn)) == 3
        assert shown("--sample", "--seed", 1) == drawn
        assert "--row 7: the data set has 6 rows" in run("inspect", path, "--row", 7, code=2)[1]

    def test_what_was_cut_is_told_where_it_was_cut(self, run: Run):
        path = write("a.jsonl", [chat("user:Say ba.", "assistant:ba")])
        out, _ = run("inspect", path, "--max-length", 28, "--overlength", "truncate_right", "--limit", 0)
        assert "28 tokens, 2 train" in out
        assert "truncated: longer than data.max_length, cut" in out
        assert "«ba»\n[2 tokens are cut off after this]" in out

    def test_a_row_that_is_dropped_is_shown_untrained(self, run: Run):
        path = write("a.jsonl", [chat("user:Say ba.", "assistant:ba")])
        out, _ = run("inspect", path, "--max-length", 20, "--overlength", "drop", "--limit", 0)
        assert "dropped: longer than data.max_length" in out
        assert "ba<|im_end|>" in out
        assert "«" not in out

    def test_faulty_rows_are_told_with_their_places_and_the_others_shown(self, run: Run):
        path = write("a.jsonl", [chat("usr:a", "assistant:b"), chat("user:a", "assistant:b")])
        out, err = run("inspect", path, code=2)
        assert "row 1  a.jsonl:1" in out
        assert "faulty: messages[0] has the role 'usr'" in out
        assert "«b<|im_end|>»" in out
        assert "error: 1 faulty row, listed above; training stops at the first" in err

    def test_tokens_one_by_one(self, run: Run):
        out, _ = run("inspect", write("a.jsonl", [chat("user:a", "assistant:b")]), "--tokens", "--limit", 0)
        lines = [line.split() for line in out.splitlines()]
        assert ["257", "0", '"<|im_start|>"', "special"] in lines
        assert ["65", "1", '"b"'] in lines
        assert '"\\n"' in out

    def test_the_row_as_it_was_read(self, run: Run):
        path = write("a.jsonl", [chat("user:a", "assistant:b", topic="letters")])
        out, _ = run("inspect", path, "--raw", "--limit", 0)
        assert '"topic": "letters"' in out
        assert "as a record" in out
        assert "topic" not in run("inspect", path, "--limit", 0)[0]

    def test_both_sides_of_a_pair(self, run: Run):
        path = write("a.jsonl", [{"prompt": "Hi", "chosen": "yes", "rejected": "no"}])
        out, _ = run("inspect", path, "--for", "dpo", "--limit", 0)
        shared = num_tokens("user:Hi")
        assert f"chosen: {shared + num_tokens('assistant:yes')} tokens, 4 train" in out
        assert f"rejected: {shared + num_tokens('assistant:no')} tokens, 3 train" in out
        assert "«yes<|im_end|>»" in out
        assert "«no<|im_end|>»" in out

    def test_pairs_that_are_taken_for_samples_are_told_where_they_belong(self, run: Run):
        path = write("a.jsonl", [{"prompt": "Hi", "chosen": "yes", "rejected": "no"}])
        assert "look at them with --for dpo" in run("inspect", path, code=2)[1]

    def test_a_prompt_ends_where_the_policy_begins(self, run: Run):
        path = write("a.jsonl", [{"question": "1+1?", "answer": "#### 2"}])
        out, _ = run("inspect", path, "--for", "grpo", "--limit", 0, "--set", "sampling.max_new_tokens=8")
        assert f"prompt of {num_tokens('user:1+1?') + 11} tokens" in out
        assert "####" not in out

    def test_json_is_all_there_is_on_standard_output(self, run: Run):
        path = write("a.jsonl", [chat("user:a", "assistant:\u00e9")])
        document = json.loads(run("inspect", path, "--json")[0])
        assert (document["command"], document["for"], document["formatter"]) == (
            "data inspect", "train/sft", "messages",
        )  # fmt: skip
        (row,) = document["rows"]
        (sequence,) = row["sequences"]
        assert "".join(sequence["pieces"]) == (
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n\u00e9<|im_end|>\n"
        )
        # The letter has two bytes; with what ends the turn, three tokens train.
        assert sequence["loss_weights"] == [0.0] * (num_tokens("user:a") + 11) + [1.0] * 3 + [0.0]
        assert sequence["roles"].count("assistant") == 3
        assert document["figures"]["counts"]["rows"] == 1
        assert document["template"]["keeps_earlier_turns"] is True

    def test_json_holds_what_json_does_not_know(self, run: Run):
        Path("a.jsonl").write_text(
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "score": NaN}\n'
        )
        out, _ = run("inspect", "a.jsonl", "--json", "--raw")
        (row,) = json.loads(out, parse_constant=pytest.fail)["rows"]
        assert row["raw"]["score"] == row["record"]["extra"]["score"] == "nan"

    def test_a_template_that_rewrites_earlier_turns_is_warned_of(self, run: Run):
        Path("last.jinja").write_text(
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last or m.role == 'user' %}{{ m.content }}"
            "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        )
        path = write("a.jsonl", [chat("user:a", "assistant:b")])
        _, err = run("inspect", path, "--limit", 0, "--set", "model.chat_template=last.jinja")
        assert "warning: The chat template rewrites earlier turns" in err


class TestStats:
    def test_everything_is_counted(self, run: Run):
        one, two = ("user:Say ba.", "assistant:ba"), ("system:Be.", "user:a", "assistant:b", "user:c", "assistant:dd")
        path = write("a.jsonl", [chat(*one), chat(*two, topic="x")])
        figures = json.loads(run("stats", path, "--json")[0])["figures"]
        lengths = [num_tokens(*one), num_tokens(*two)]
        assert lengths == [30, 60]
        assert figures["counts"]["tokens"] == sum(lengths)
        assert figures["counts"]["trained_tokens"] == 3 + 2 + 3
        assert figures["trained_share"] == pytest.approx(8 / 90)
        assert figures["roles"] == {
            "template": {"messages": 0, "tokens": 90 - 8 - 12 - 4, "trained_tokens": 0},
            "system": {"messages": 1, "tokens": 4, "trained_tokens": 0},
            "user": {"messages": 3, "tokens": 8 + 2 + 2, "trained_tokens": 0},
            "assistant": {"messages": 3, "tokens": 8, "trained_tokens": 8},
        }
        assert (figures["lengths"]["min"], figures["lengths"]["median"], figures["lengths"]["max"]) == (30, 45, 60)
        assert figures["turns"] == {"1": 1, "2": 1}
        assert figures["columns"] == {"topic": 1}
        assert figures["packing"] == {"capacity": 512, "num_bins": 1, "num_longer": 0, "fill": pytest.approx(90 / 512)}

    def test_the_text_says_the_same(self, run: Run):
        path = write("a.jsonl", [chat("user:Say ba.", "assistant:ba")] * 2)
        out, _ = run("stats", path)
        rows = [line.split() for line in out.splitlines()]
        assert ["read", "2"] in rows
        assert ["assistant", "2", "6", "6", "100.0%"] in rows
        assert ["all", "60", "6", "10.0%"] in rows
        assert ["30", "2", "█" * 40] in rows
        assert "The same tokens: 2 rows in 1 group\n  a.jsonl:1 = a.jsonl:2" in out

    def test_one_question_with_two_answers(self, run: Run):
        path = write("a.jsonl", [chat("user:a", "assistant:b"), chat("user:a", "assistant:c")])
        figures = json.loads(run("stats", path, "--json")[0])["figures"]
        assert figures["duplicates"]["groups"] == 0
        assert figures["answered_differently"]["examples"] == [["a.jsonl:1", "a.jsonl:2"]]

    def test_all_faults_are_listed_by_kind_before_it_ends(self, run: Run):
        rows = [chat("usr:a", "assistant:b"), chat("user:a", "assistant:b"), chat("user:a"), chat("usr:a")]
        out, err = run("stats", write("a.jsonl", rows), code=2)
        assert "2 faulty: messages[0] has the role 'usr'" in out
        assert "a.jsonl:1, a.jsonl:4" in out
        assert "1 faulty: no token of this row would be trained" in out
        assert "error: 3 faulty rows, listed above" in err

    def test_the_exit_code_is_what_training_makes_of_faulty_rows(self, run: Run):
        path = write("a.jsonl", [chat("usr:a", "assistant:b"), chat("user:a", "assistant:b")])
        run("stats", path, code=2)
        run("stats", path, "--on-error", "raise", code=2)
        run("stats", path, "--on-error", "skip", code=0)
        _, err = run("stats", path, "--on-error", "skip", "--set", "data.max_skipped=0", code=2)
        assert "more than data.max_skipped=0 allows" in err

    def test_rows_that_are_cut_or_dropped_are_counted(self, run: Run):
        path = write("a.jsonl", [chat("user:Say ba.", "assistant:ba"), chat("user:a", "assistant:b")])
        cut = json.loads(run("stats", path, "--json", "--max-length", 28, "--overlength", "truncate_right")[0])[
            "figures"
        ]
        assert (cut["counts"]["truncated"], cut["tokens_cut"], cut["kept"]) == (1, 2, 2)
        dropped = json.loads(run("stats", path, "--json", "--max-length", 28, "--overlength", "drop")[0])["figures"]
        assert (dropped["counts"]["dropped"], dropped["kept"]) == (1, 1)
        (group,) = dropped["not_as_they_were"]
        assert group["places"] == ["a.jsonl:1"]

    def test_packing_is_that_of_the_run(self, run: Run):
        path = write("a.jsonl", [chat("user:Say ba.", "assistant:ba")] * 5)
        figures = json.loads(run("stats", path, "--json", "--set", "batch.pack_length=64")[0])["figures"]
        # Two rows of 30 tokens fit into 64.
        assert figures["packing"] == {"capacity": 64, "num_bins": 3, "num_longer": 0, "fill": pytest.approx(150 / 192)}

    def test_only_the_first_rows(self, run: Run):
        path = write("a.jsonl", [chat("user:a", "assistant:b")] * 5)
        assert json.loads(run("stats", path, "--limit", 2, "--json")[0])["figures"]["counts"]["rows"] == 2

    def test_workers_count_the_same(self, run: Run):
        path = write("a.jsonl", [chat(f"user:{index}", "assistant:b") for index in range(150)])
        alone, shared = (json.loads(run("stats", path, "--json", "--num-workers", n)[0]) for n in (0, 2))
        assert alone["figures"] == shared["figures"]

    def test_the_histogram_as_a_picture(self, run: Run):
        run("stats", write("a.jsonl", [chat("user:a", "assistant:b")]), "--plot", "lengths.png")
        assert Path("lengths.png").read_bytes().startswith(b"\x89PNG")

    def test_a_preset_is_counted_as_it_would_train(self, run: Run):
        more = ["--set", "dataset.size=20"]
        document = json.loads(run("stats", "--preset", "train/sft/arithmetic", "--json", *more)[0])
        assert (document["for"], document["dataset"], document["max_length"]) == ("train/sft", "arithmetic", 256)
        assert document["figures"]["counts"]["rows"] == 20
        assert json.loads(run("stats", "--preset", "gsm8k-tiny", "--json", *more)[0])["for"] == "train/grpo"

    def test_a_run_that_holds_rows_out_does_not_count_them(self, run: Run):
        path = write("a.jsonl", [chat(f"user:{index}", "assistant:b") for index in range(100)])
        document = json.loads(run("stats", path, "--json", "--set", "data.validation_fraction=0.2")[0])
        assert 60 <= document["figures"]["counts"]["rows"] < 100


class TestStreams:
    @pytest.fixture
    def stream(self, run: Run) -> list[object]:
        rows = [chat(f"user:{index}", "assistant:b") for index in range(1, 8)]
        rows[1] = chat("usr:2", "assistant:b")
        return [write("a.jsonl", rows), "--set", "dataset.streaming=true"]

    def test_the_first_rows_and_one_further_on(self, run: Run, stream: list[object]):
        document = json.loads(run("inspect", *stream, "--json", code=2)[0])
        assert [row["outcome"] for row in document["rows"]] == ["kept", "faulty", "kept"]
        assert document["num_rows"] is None
        assert document["figures"]["counts"]["rows"] == 7
        (row,) = json.loads(run("inspect", *stream, "--row", 6, "--limit", 0, "--json")[0])["rows"]
        assert row["source"] == "a.jsonl:6"

    def test_a_row_behind_the_end(self, run: Run, stream: list[object]):
        assert "The stream has no row 9" in run("inspect", *stream, "--row", 9, code=2)[1]

    def test_how_many_rows_to_count_has_to_be_said(self, run: Run, stream: list[object]):
        assert "for example --limit 10000" in run("stats", *stream, code=2)[1]
        document = json.loads(run("stats", *stream, "--limit", 6, "--json", code=2)[0])
        assert document["figures"]["counts"]["rows"] == 6

    def test_rows_of_a_stream_cannot_be_drawn(self, run: Run, stream: list[object]):
        assert "--sample: rows of a stream" in run("inspect", *stream, "--sample", code=2)[1]


class Page(HTMLParser):
    """Open elements, and every attribute of a page."""

    VOID = ("meta", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.tokens: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "span" and "title" in dict(attrs):
            self.tokens.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class TestPage:
    @pytest.fixture
    def page(self, run: Run) -> str:
        rows = [chat("user:<script>alert(1)</script>\" onload='x'", "assistant:<b>"), chat("usr:a")]
        run("inspect", write("a.jsonl", rows), "--html", "rows.html", code=2)
        return Path("rows.html").read_text()

    def test_it_is_whole_and_needs_nothing_else(self, page: str):
        parsed = Page(page)
        assert parsed.open == []
        assert not [name for _, name, _ in parsed.attributes if name in ("src", "href") or name.startswith("on")]
        assert "http://" not in page.replace("http-equiv", "")
        assert "https://" not in page
        assert "@import" not in page
        assert "url(" not in page
        assert "default-src 'none'" in page

    def test_contents_are_escaped(self, page: str):
        assert page.count("<script>") == 1
        assert "&lt;" in page
        assert "alert(1)</script>" not in page

    def test_a_token_tells_itself_under_the_pointer(self, page: str):
        trained = [token for token in Page(page).tokens if "w" in (token["class"] or "").split()]
        assert [token["title"] for token in trained] == [
            'id 27 · weight 1 · assistant · "<"',
            'id 65 · weight 1 · assistant · "b"',
            'id 29 · weight 1 · assistant · ">"',
            'id 258 · weight 1 · assistant · "<|im_end|>"',
        ]

    def test_faults_have_their_place(self, page: str):
        assert "messages[0] has the role &#x27;usr&#x27;" in page
        assert "a.jsonl:2" in page

    def test_figures_have_a_page_as_well(self, run: Run):
        run("stats", write("a.jsonl", [chat("user:a", "assistant:b")] * 2), "--html", "stats.html")
        page = Path("stats.html").read_text()
        assert Page(page).open == []
        assert "<svg" in page
        assert "The same tokens" in page


class TestBadInput:
    def test_nothing_to_look_at(self, run: Run):
        assert "Nothing to look at" in run("inspect", code=2)[1]

    def test_a_kind_that_is_not_there(self, run: Run):
        path = write("a.jsonl", [chat("user:a", "assistant:b")])
        assert "--for kto: must be one of sft, dpo, grpo" in run("stats", path, "--for", "kto", code=2)[1]

    def test_a_file_that_is_not_there(self, run: Run):
        assert "none.jsonl" in run("inspect", "none.jsonl", code=2)[1]

    def test_a_page_that_cannot_be_written_is_told_before_the_data_is_read(self, run: Run):
        assert "no directory gone" in run("inspect", "none.jsonl", "--html", "gone/rows.html", code=2)[1]

    def test_a_setting_that_the_run_does_not_have(self, run: Run):
        path = write("a.jsonl", [{"prompt": "Hi", "chosen": "yes", "rejected": "no"}])
        assert "--train-on" in run("stats", path, "--for", "dpo", "--train-on", "all", code=2)[1]

    def test_no_row_is_trained_on_so_there_is_nothing_to_draw(self, run: Run):
        path = write("a.jsonl", [chat("user:a")])
        assert "no lengths to draw" in run("stats", path, "--plot", "lengths.png", code=2)[1]
