import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmkit.algorithms.mismatch import mismatch
from llmkit.runs import run_directory
from llmkit.train.plots import write_plots
from llmkit.train.report.charts import Chart, charts, series, smooth, thin_out, ticks, value_range
from llmkit.train.report.page import write_report
from llmkit.train.report.samples import over_time, read_samples
from llmkit.train.report.svg import HEIGHT, WIDTH, figure

finite = st.floats(min_value=-1e12, max_value=1e12, allow_nan=False)
VOID = {"meta", "line", "polyline", "circle"}


class Outline(HTMLParser):
    """Collects elements and text, and checks that every element that opens is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def report(path: Path, rows: list[dict[str, Any]], status: str = "finished", detail: str = "") -> tuple[str, Outline]:
    """The page of a run in `path` that logged `rows`, and its outline."""
    with run_directory.open("train/grpo", output_dir=path) as directory:
        directory.write_start("seed: 7\nname: <odd>\n", ["llmkit"])
        directory.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_report(directory, status, detail)
        page = directory.report.read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    return page, outline


def write_rollouts(directory: Path, name: str, *samples: dict[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text("".join(json.dumps(sample) + "\n" for sample in samples))


def sample(prompt: str, completion: str, reward: float, group_id: int = 0) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "reward": reward, "group_id": group_id, "answer": "42",
            "stop_reason": "stop"}  # fmt: skip


STEPS: list[dict[str, Any]] = [
    {"step": 0, "time_seconds": 1.0, "eval_accuracy": 0.25},
    *({"step": step, "time_seconds": step + 1.0, "loss": 2.0 / step, "reward_mean": step / 60, "custom_thing": step,
       "generation_seconds": 0.5, "num_tokens": 10, "tokens_per_second": 20.0} for step in range(1, 51)),
    {"step": 51, "time_seconds": 60.0, "eval_accuracy": 0.75, "loss": None},
]  # fmt: skip


def test_the_report_needs_nothing_but_itself(tmp_path: Path):
    page, outline = report(tmp_path, STEPS)
    assert re.findall(r"https?:|//[a-z]|@import|url\(", page) == []
    sources = [value for _, attributes in outline.seen for name, value in attributes.items() if name in ("src", "href")]
    assert sources == []
    assert "default-src 'none'" in page


def test_the_report_shows_what_was_measured_and_nothing_else(tmp_path: Path):
    _, outline = report(tmp_path, STEPS)
    for expected in ("llmkit train grpo", "finished", "Reward", "Loss", "Accuracy", "Custom thing", "generation",
                     "everything else", "0.25 → ", "0.75", "seed: 7", "name: <odd>"):  # fmt: skip
        assert expected in outline.text
    for absent in ("Entropy", "KL", "Sample rollouts"):
        assert absent not in outline.text


def test_every_chart_is_described_in_words(tmp_path: Path):
    _, outline = report(tmp_path, STEPS)
    drawings = [attributes for tag, attributes in outline.seen if tag == "svg"]
    assert len(drawings) == len(charts(STEPS)) == 5
    assert all(attributes["role"] == "img" for attributes in drawings)
    labels = [str(attributes["aria-label"]) for attributes in drawings]
    assert "Loss. loss from 2 (step 1) to 0.04 (step 50), lowest 0.04, highest 2" in labels
    assert [attributes["lang"] for tag, attributes in outline.seen if tag == "html"] == ["en"]


def test_a_run_without_a_step_has_a_report_too(tmp_path: Path):
    _, outline = report(tmp_path, [], "failed", "data.jsonl:3: no 'messages'")
    assert "No step was logged." in outline.text
    assert "data.jsonl:3: no 'messages'" in outline.text
    assert not list(tmp_path.glob("*.png"))


def test_damaged_lines_do_not_stop_the_report(tmp_path: Path):
    with run_directory.open("train/grpo", output_dir=tmp_path) as directory:
        directory.metrics.write_bytes(b'{"step": 1, "loss": 2}\nrubbish\n{"step": 2, "lo')
        write_rollouts(directory.rollouts, "eval-00001.jsonl", sample("p", "c", 1.0))
        with (directory.rollouts / "eval-00001.jsonl").open("ab") as file:
            file.write(b'{"prompt": "cut')
        directory.environment.write_text("{")
        write_report(directory)
        assert "loss 2 (step 1)" in directory.report.read_text()


def test_samples_stand_side_by_side_and_are_escaped(tmp_path: Path):
    write_rollouts(tmp_path / "samples", "eval-00000.jsonl", sample("6*7?", "<script>alert(1)</script>", 0.0))
    write_rollouts(tmp_path / "samples", "eval-00300.jsonl", sample("6*7?", "42\x00", 1.0))
    write_rollouts(tmp_path / "samples", "step-00100.jsonl", sample("other", "unseen", 1.0))
    run = tmp_path / "run"
    run.mkdir()
    with run_directory.open("train/grpo", output_dir=run) as directory:
        (tmp_path / "samples").rename(directory.rollouts)
        write_report(directory)
        page = directory.report.read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(page)
    assert page.count("<script>") == 1  # its own
    for expected in (
        "Step 0",
        "Step 300",
        "<script>alert(1)</script>",
        "42\N{REPLACEMENT CHARACTER}",
        "reward 0",
        "reward 1",
    ):
        assert expected in outline.text
    assert "unseen" not in outline.text
    assert outline.text.index("Step 0") < outline.text.index("Step 300")


def test_prompts_are_matched_and_each_is_shown_once(tmp_path: Path):
    write_rollouts(tmp_path, "a", sample("p", "1", 0, 0), sample("p", "2", 0, 0), sample("q", "3", 0, 1))
    write_rollouts(tmp_path, "b", sample("q", "4", 1, 0), sample("r", "5", 1, 1))
    before, after = read_samples(tmp_path / "a"), read_samples(tmp_path / "b")
    assert [found["completion"] for found in before] == ["1", "3"]
    (row,) = over_time([(0, before), (7, after)])
    assert [(step, found["completion"]) for step, found in row] == [(0, "3"), (7, "4")]
    assert [[found["completion"] for _, found in row] for row in over_time([(7, after)])] == [["4"], ["5"]]


def test_a_prompt_is_shown_at_several_steps_in_their_order(tmp_path: Path):
    run = tmp_path / "run"
    with run_directory.open("train/grpo", output_dir=run) as directory:
        for step in range(0, 1001, 100):
            write_rollouts(directory.rollouts, f"eval-{step:05d}.jsonl", sample("6*7?", f"answer {step}", step / 1000))
        write_report(directory)
        page = directory.report.read_text(encoding="utf-8")
    # Five columns of eleven evaluations, the first and the last among them.
    assert re.findall(r"<b>Step (\d+)</b>", page) == ["0", "200", "500", "800", "1000"]
    assert re.findall(r"answer (\d+)", page) == ["0", "200", "500", "800", "1000"]
    assert page.count('class="prompt"') == 1
    assert page.count("prefers-color-scheme: dark") == 1


def test_memory_is_drawn_in_gigabytes_and_counts_of_nothing_are_not():
    rows = [{"step": step, "peak_memory_bytes": step * 2e9, "num_rows_skipped": 0, "num_rows_split": step - 1}
            for step in (1, 2)]  # fmt: skip
    memory, split = charts(rows)
    assert (memory.title, memory.series[0].label, memory.series[0].points) == (
        "Peak memory, GB", "peak memory", ((1.0, 2.0), (2.0, 4.0)),
    )  # fmt: skip
    assert split.title == "Num rows split"


def test_preference_runs_have_charts_of_their_own():
    step = {"rewards_chosen": 1.0, "rewards_rejected": -1.0, "rewards_margin": 2.0, "rewards_accuracy": 1.0}
    found = charts([{"step": 1, "loss": 0.5, **step}, {"step": 2, "eval_loss": 0.4, "eval_margin": 2.0}])
    assert [(chart.title, [series.label for series in chart.series]) for chart in found] == [
        ("Accuracy", ["rewards accuracy"]),
        ("Loss", ["loss", "held-out loss"]),
        ("Implicit rewards", ["rewards chosen", "rewards rejected"]),
        ("Margin of implicit rewards", ["rewards margin", "held-out margin"]),
    ]


def test_trainer_and_engine_are_compared_in_charts_with_axes_of_their_own():
    found = charts([{"step": step, **mismatch(torch.tensor([-1.0]), torch.tensor([-1.2]))} for step in (1, 2)])
    assert [(chart.title.removeprefix("Trainer against engine: "), len(chart.series)) for chart in found] == [
        ("KL divergence, nats", 2),
        ("ratio of probabilities", 3),
        ("largest ratio of probabilities", 1),
        ("difference of probabilities", 2),
    ]


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [0.0, 0.0, 0.0], [-5.0, 3.0], [1e-9, 2e-9], [1e9, 3e9]])
def test_curves_stay_inside_the_drawing(values: list[float]):
    drawing = figure(Chart("Loss", (series([{"step": i, "loss": v} for i, v in enumerate(values)], "loss"),)))
    places = re.findall(r'points="([^"]+)"', drawing) + [",".join(found) for found in
                                                         re.findall(r'cx="([^"]+)" cy="([^"]+)"', drawing)]  # fmt: skip
    assert places
    for place in " ".join(places).split():
        x, y = map(float, place.split(","))
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


@given(finite, st.floats(min_value=1e-6, max_value=1e9))
def test_ticks_are_few_and_inside(low: float, span: float):
    high = low + span
    if high - low < abs(low) * 1e-9:
        return
    found = ticks(low, high)
    assert 1 <= len(found) <= 9
    tolerance = (high - low) * 1e-6
    assert all(low - tolerance <= value <= high + tolerance for value in found)
    assert found == sorted(found)


def test_ticks_by_hand():
    assert ticks(0.0, 1.0) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(0.0, 300.0, 5) == [0, 100, 200, 300]
    assert ticks(0.0, 1e-4) == [0.0, 2.5e-05, 5e-05, 7.5e-05, 1e-4]


@given(st.lists(finite, min_size=1, max_size=2000))
def test_thinning_out_keeps_both_extremes_and_the_order(values: list[float]):
    points = [(float(step), value) for step, value in enumerate(values)]
    thinned = thin_out(points)
    assert len(thinned) <= 301
    assert {min(values), max(values)} <= {value for _, value in thinned}
    assert set(thinned) <= set(points)
    assert thinned == sorted(thinned)


def test_smoothing_leaves_a_straight_line_where_it_is():
    line = [(float(step), 3.0 - 0.01 * step) for step in range(200)]
    assert [value for _, value in smooth(line)] == pytest.approx([value for _, value in line])


def test_smoothing_calms_noise():
    noisy = [(float(step), float(step % 2)) for step in range(400)]
    calm = [value for _, value in smooth(noisy)][20:-20]
    assert max(calm) - min(calm) < 0.1


@given(st.lists(finite, min_size=1, max_size=50))
def test_the_axis_holds_every_value(values: list[float]):
    low, high = value_range(Chart("x", (series([{"step": i, "x": v} for i, v in enumerate(values)], "x"),)))
    assert low < high
    assert all(low <= value <= high for value in values)
    assert math.isfinite(low)


def test_shares_that_stay_at_zero_are_drawn_on_an_axis_of_shares():
    assert value_range(Chart("x", (series([{"step": i, "x": 0.0} for i in range(3)], "x"),))) == (0.0, 1.0)


PNG = b"\x89PNG\r\n\x1a\n"


def test_the_reward_is_plotted_where_there_is_one(tmp_path: Path):
    assert write_plots(tmp_path, STEPS) == tmp_path / "reward.png"
    assert (tmp_path / "reward.png").read_bytes().startswith(PNG)
    assert [path.name for path in tmp_path.iterdir()] == ["reward.png"]


def test_the_loss_is_plotted_elsewhere(tmp_path: Path):
    assert write_plots(tmp_path, [{"step": 1, "loss": 2.0, "eval_loss": 2.5}]) == tmp_path / "loss.png"
    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)


def test_nothing_is_plotted_when_neither_was_measured(tmp_path: Path):
    assert write_plots(tmp_path, [{"step": 1, "loss": None}]) is None
    assert list(tmp_path.iterdir()) == []
