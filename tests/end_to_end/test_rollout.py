"""`llmkit rollout` as a whole: what it writes, what a kill does to it, and who reads the result."""

import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llmkit.rollout.lines import read_lines

from .conftest import Command, Run

TIMES = ("generation_seconds", "scoring_seconds")
ROWS = 12
GROUP = 3


def arguments(model: str, *more: object) -> list[object]:
    """Three completions of each of twelve small problems, by random weights."""
    problems = ["--set", f"dataset={{name: arithmetic, size: {ROWS}, max_steps: 1}}"]
    sizes = ["--group-size", GROUP, "--max-new-tokens", 12, "--threads", 1]
    return ["rollout", "--model", model, *problems, "--reward", "closeness", *sizes, *more]


@pytest.fixture(autouse=True)
def _closeness(fake_package) -> None:
    """A reward that tells the completions of random weights apart."""
    front = '''
        """How many digits are in it."""
        from llmkit.config.section import Section
        IN_PROCESS = True
        class Config(Section):
            """Nothing to choose."""
        def build(config):
            return lambda rollout: float(sum(map(str.isdigit, rollout.completion)))
    '''
    fake_package("acme-closeness", {"rewards": {"closeness": "acme_closeness"}}, {"acme_closeness.py": front})


def rollouts(run: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """The rollouts of a run by place, without what depends on the clock; none is there twice."""
    lines = [line.values for line in read_lines(run / "rollouts.jsonl")]
    assert all(line is not None for line in lines), "a torn line"
    found = {
        (line["group_id"], line["member"]): {name: value for name, value in line.items() if name not in TIMES}
        for line in lines
        if line is not None
    }
    assert len(found) == len(lines), "a rollout is there twice"
    return found


def wait_for_lines(process: Any, path: Path, count: int) -> None:
    """Until a file has so many lines."""
    end = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no rollouts within two minutes"
        time.sleep(0.005)


class TestRun:
    def test_every_rollout_is_a_line_with_all_that_is_known_of_it(self, run: Run, model: str, tmp_path: Path):
        summary = json.loads(run(*arguments(model, "--output-dir", "out", "--json")).out)
        found = rollouts(tmp_path / "out")
        assert sorted(found) == [(group, member) for group in range(ROWS) for member in range(GROUP)]
        for (group, _), line in found.items():
            count = len(line["completion_ids"])
            assert line["completion_length"] == count == len(line["logprobs"]) == len(line["versions"])
            assert line["loss_mask"] == [1] * count
            assert line["prompt_length"] == len(line["prompt_ids"])
            assert line["source"] == f"arithmetic[train]:{group + 1}"
            assert line["messages"][0]["content"] in line["prompt"]
            assert line["rewards"] == {"closeness": line["reward"]}
            assert all(logprob <= 0 for logprob in line["logprobs"])
            assert line["stop_reason"] == ("length" if count == 12 and line["completion_ids"][-1] != 258 else "stop")
        assert len({line["seed"] for line in found.values()}) == ROWS * GROUP
        rewards = [line["reward"] for line in found.values()]
        assert summary["reward_mean"] == pytest.approx(sum(rewards) / len(rewards))
        assert (summary["num_rollouts"], summary["num_prompts"], summary["num_failed"]) == (ROWS * GROUP, ROWS, 0)
        assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
        header = json.loads((tmp_path / "out" / "header.json").read_text())
        assert header["config"]["model"]["path"] == model
        assert (tmp_path / "out" / "rewards.png").stat().st_size > 1000

    def test_how_many_are_under_way_changes_nothing(self, run: Run, model: str, tmp_path: Path):
        run(*arguments(model, "--output-dir", "one", "--concurrency", 1))
        run(*arguments(model, "--output-dir", "many", "--concurrency", 12))
        assert rollouts(tmp_path / "one") == rollouts(tmp_path / "many")

    def test_rows_may_be_few_and_samples_greedy(self, run: Run, model: str, tmp_path: Path):
        run(*arguments(model, "--output-dir", "out", "--max-rows", 2, "--temperature", 0))
        found = rollouts(tmp_path / "out")
        assert len(found) == 2 * GROUP
        assert len({tuple(line["completion_ids"]) for (group, _), line in found.items() if group == 0}) == 1

    def test_without_a_reward_there_is_none(self, run: Run, tmp_path: Path, chats: Path):
        data = ["--dataset", "files", "--dataset-path", chats, "--max-rows", 3]
        ended = run("rollout", "--engine", "echo", "--model", "builtin:tiny-untrained", *data, "--output-dir", "out",
                    "--set", "model.chat_template=qwen", "--max-new-tokens", 4)  # fmt: skip
        assert [line["reward"] for line in rollouts(tmp_path / "out").values()] == [None] * 3
        assert "reward" not in ended.err.partition("The rollouts")[2]
        assert not (tmp_path / "out" / "rewards.png").exists()

    def test_a_dry_run_shows_the_prompt_and_writes_nothing(self, run: Run, model: str, tmp_path: Path):
        ended = run(*arguments(model, "--output-dir", "out", "--dry-run", "--json"))
        found = json.loads(ended.out)
        assert found["first_prompt"].startswith("<|im_start|>user\n")
        assert found["num_rollouts"] == ROWS * GROUP
        assert not (tmp_path / "out").exists()

    def test_the_preset_runs_at_once(self, run: Run, tmp_path: Path, model: str):
        summary = json.loads(run("rollout", "--preset", "builtin-tiny", "--model", model, "--json").out)
        assert summary["num_rollouts"] == 256
        assert set(summary["pass_at_k"]) == {"1", "2", "4", "8"}
        assert Path(summary["output"]).parts[0] == "runs"


class TestResuming:
    @pytest.mark.parametrize("count", [1, 17])
    def test_killed_and_resumed_it_is_the_run_that_was_never_killed(
        self, llmkit: Command, model: str, tmp_path: Path, count: int
    ):
        # One prompt at a time, so that the kill comes in the middle.
        slowly = arguments(model, "--output-dir", "killed", "--concurrency", 1)
        process = llmkit.start(slowly)
        wait_for_lines(process, tmp_path / "killed" / "rollouts.jsonl", count)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        with (tmp_path / "killed" / "rollouts.jsonl").open("ab") as file:
            file.write(b'{"group_id": 11, "member": 2, "source": "ari')  # as a kill within a write leaves it
        before = (tmp_path / "killed" / "rollouts.jsonl").read_bytes().count(b"\n")
        assert count <= before
        _, err = llmkit.run("rollout", "--resume", "--output-dir", "killed")
        assert "cut off 44 bytes of a line that was never finished" in err
        llmkit.run(*arguments(model, "--output-dir", "whole"))
        assert rollouts(tmp_path / "killed") == rollouts(tmp_path / "whole")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_stopped_it_says_how_to_go_on(self, llmkit: Command, model: str, tmp_path: Path, number: signal.Signals):
        slow = ["--engine", "echo", "--set", "engine.seconds_per_token=0.05", "--concurrency", 1]
        process = llmkit.start(arguments(model, "--output-dir", "out", *slow))
        wait_for_lines(process, tmp_path / "out" / "rollouts.jsonl", GROUP)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "Go on with: llmkit rollout --resume --output-dir out" in err
        assert "Traceback" not in err
        done = rollouts(tmp_path / "out")
        assert GROUP <= len(done) < ROWS * GROUP
        llmkit.run("rollout", "--resume", "--output-dir", "out", "--set", "engine.seconds_per_token=0.05")
        assert len(rollouts(tmp_path / "out")) == ROWS * GROUP

    def test_a_finished_run_has_nothing_to_make(self, run: Run, model: str, tmp_path: Path):
        run(*arguments(model, "--output-dir", "out"))
        content = (tmp_path / "out" / "rollouts.jsonl").read_bytes()
        summary = json.loads(run("rollout", "--resume", "--json").out) if (tmp_path / "runs").exists() else None
        summary = json.loads(run("rollout", "--resume", "--output-dir", "out", "--json").out)
        assert (tmp_path / "out" / "rollouts.jsonl").read_bytes() == content
        assert summary["num_rollouts"] == ROWS * GROUP

    def test_it_may_grow_by_rows_and_members(self, run: Run, model: str, tmp_path: Path):
        run(*arguments(model, "--output-dir", "grown", "--max-rows", 3, "--set", "group_size=2"))
        run("rollout", "--resume", "--output-dir", "grown", "--max-rows", ROWS, "--group-size", GROUP)
        run(*arguments(model, "--output-dir", "whole"))
        assert rollouts(tmp_path / "grown") == rollouts(tmp_path / "whole")

    def test_other_settings_are_refused_by_name(self, run: Run, model: str, tmp_path: Path):
        run(*arguments(model, "--output-dir", "out", "--max-rows", 1))
        ended = run("rollout", "--resume", "--output-dir", "out", "--temperature", 0.5, "--seed", 4, code=2)
        assert "sampling.temperature was 1.0, is 0.5" in ended.error
        assert "seed was 0, is 4" in ended.error
        assert len(rollouts(tmp_path / "out")) == GROUP

    def test_other_rows_are_refused(self, run: Run, model: str, tmp_path: Path):
        rows = [{"question": f"What is {number}?", "answer": f"#### {number}"} for number in range(3)]
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = ["--dataset", "files", "--dataset-path", path, "--max-new-tokens", 4]
        run("rollout", "--model", model, *data, "--output-dir", "out", "--max-rows", 1)
        path.write_text(path.read_text().replace("What", "How much"))
        ended = run("rollout", "--resume", "--output-dir", "out", "--max-rows", 3, code=2)
        assert "the data set has other rows" in ended.error

    def test_a_directory_in_use_is_left_alone(self, run: Run, model: str):
        run(*arguments(model, "--output-dir", "out", "--max-rows", 1))
        ended = run(*arguments(model, "--output-dir", "out", "--max-rows", 1), code=2)
        assert "holds a run of `llmkit rollout` (rollouts.jsonl); go on with it with --resume" in ended.error


@pytest.fixture
def flaky(fake_package, tmp_path: Path) -> None:
    """A reward that fails for odd answers until a file is there, and an engine that dies after ten completions."""
    reward = f'''
        """Fails until it is mended."""
        from pathlib import Path
        from llmkit.config.section import Section
        IN_PROCESS = True
        class Config(Section):
            """Nothing to choose."""
        def build(config):
            def score(rollout):
                if int(rollout.record.source.line) % 4 == 0 and not Path({str(tmp_path / "mended")!r}).exists():
                    raise KeyError("solution")
                return 1.0
            return score
    '''
    engine = '''
        """Dies after ten completions."""
        from llmkit.engines.inference.echo import Config, EchoEngine
        from llmkit.errors import EngineError
        class Dying(EchoEngine):
            calls = 0
            async def generate(self, prompt_ids, sampling):
                self.calls += 1
                if self.calls > 10:
                    raise EngineError("the server at 127.0.0.1:8000 is gone")
                return await super().generate(prompt_ids, sampling)
        def build(config, context):
            return Dying(config, context.tokenizer)
    '''
    fake_package(
        "acme-flaky",
        {"rewards": {"flaky": "acme_flaky"}, "engines": {"dying": "acme_dying"}},
        {"acme_flaky.py": reward, "acme_dying.py": engine},
    )


class TestFailures:
    def test_rollouts_that_fail_are_told_and_made_again_on_resuming(
        self, run: Run, model: str, tmp_path: Path, flaky: None
    ):
        start = [*arguments(model, "--output-dir", "out"), "--reward", "flaky"]
        ended = run(*start, "--json", code=1)
        assert "9 rollouts failed and are missing" in ended.error
        assert json.loads(ended.out)["num_failed"] == 9
        assert len(rollouts(tmp_path / "out")) == ROWS * GROUP - 9
        errors = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
        assert Counter(error["group_id"] for error in errors) == {3: 3, 7: 3, 11: 3}
        assert all(error["phase"] == "scoring" and "KeyError" in error["error"] for error in errors)
        (tmp_path / "mended").touch()
        run("rollout", "--resume", "--output-dir", "out")
        assert len(rollouts(tmp_path / "out")) == ROWS * GROUP

    def test_an_engine_that_dies_ends_the_run_and_what_was_made_is_kept(
        self, run: Run, model: str, tmp_path: Path, flaky: None
    ):
        ended = run(
            *arguments(model, "--output-dir", "out"), "--engine", "dying", "--max-errors", 4, "--concurrency", 1, code=1
        )
        assert "5 rollouts failed, more than max_errors=4 allows" in ended.error
        assert "the server at 127.0.0.1:8000 is gone" in ended.error
        assert len(rollouts(tmp_path / "out")) == 10
        assert len((tmp_path / "out" / "errors.jsonl").read_text().splitlines()) == 5


class TestBadInput:
    @pytest.mark.parametrize(
        ("more", "told"),
        [
            (["--workflow", "singel_turn"], "Did you mean 'single_turn'?"),
            (["--reward", "gsm8"], "Did you mean 'gsm8k'?"),
            (["--max-new-tokens", 512], "leaves no room for a prompt"),
            (["--keep", "some"], "none of best, all, top-N"),
            (["--pairs", "best-worst", "--group-size", 1], "select.pairs needs at least two completions"),
        ],
    )
    def test_mistakes_are_told_before_anything_is_loaded(self, run: Run, model: str, more: list[object], told: str):
        ended = run(*arguments(model, "--set", "data.max_length=256", *more), code=2)
        assert told in ended.error

    def test_nothing_to_sample_for(self, run: Run):
        assert "nothing to sample for" in run("rollout", code=2).error

    def test_an_empty_data_set(self, run: Run, model: str, tmp_path: Path):
        (tmp_path / "none.jsonl").write_text("")
        ended = run("rollout", "--model", model, "--dataset", "files", "--dataset-path", "none.jsonl", code=2)
        assert "none.jsonl" in ended.error

    def test_long_prompts_stop_the_run_or_are_dropped_and_told(self, run: Run, model: str, tmp_path: Path):
        rows = [{"question": "x" * length, "answer": "1"} for length in (5, 600, 7)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        start = [
            "rollout",
            "--model",
            model,
            "--dataset",
            "files",
            "--dataset-path",
            "rows.jsonl",
            "--output-dir",
            "out",
        ]
        start += ["--max-new-tokens", 4]
        assert "rows.jsonl:2: a prompt of" in run(*start, code=2).error
        again = [*start[:-4], "--output-dir", "dropped", *start[-2:], "--set", "data.overlength=drop", "--json"]
        ended = run(*again)
        assert "of 3 rows, 1 dropped as too long" in ended.err
        assert json.loads(ended.out)["num_prompts_dropped"] == 1
        assert [group for group, _ in sorted(rollouts(tmp_path / "dropped"))] == [0, 2]


class TestTrainingData:
    def test_sft_trains_on_the_best_and_dpo_on_pairs(self, run: Run, model: str, tmp_path: Path):
        chosen = ["--keep", "best", "--pairs", "best-worst", "--set", "select.truncated=true"]
        summary = json.loads(run(*arguments(model, "--output-dir", "out", *chosen, "--json")).out)
        selected = summary["selected"]
        assert selected["demonstrations"]["num_rows"] == ROWS
        assert selected["pairs"]["num_rows"] + selected["pairs"]["num_without"] == ROWS
        assert selected["pairs"]["num_rows"] > 0
        by_group: dict[str, list[float]] = {}
        for line in rollouts(tmp_path / "out").values():
            by_group.setdefault(line["source"], []).append(line["reward"])
        demonstrations = [
            json.loads(line) for line in (tmp_path / "out" / "demonstrations.jsonl").read_text().splitlines()
        ]
        assert {row["source"]: row["reward"] for row in demonstrations} == {
            source: max(rewards) for source, rewards in by_group.items()
        }
        common = ["--model", model, "--dataset", "files", "--max-steps", 1, "--rows-per-step", 2, "--max-length", 320]
        run("train", "sft", *common, "--dataset-path", "out/demonstrations.jsonl", "--output-dir", "sft")
        run("train", "dpo", *common, "--dataset-path", "out/pairs.jsonl", "--output-dir", "dpo")

    def test_tokens_are_trained_as_they_were_sampled(self, run: Run, model: str, tmp_path: Path):
        run(*arguments(model, "--output-dir", "out"))
        ended = run(
            "rollout", "select", "out", "--keep", "top-2", "--truncated", "--form", "tokens", "--output", "t.jsonl"
        )
        assert ended.err.startswith(f"{2 * ROWS} rows in t.jsonl, from {ROWS * GROUP} rollouts of {ROWS} groups")
        sampled = {(*line["prompt_ids"], *line["completion_ids"]) for line in rollouts(tmp_path / "out").values()}
        rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
        assert {tuple(row["input_ids"]) for row in rows} <= sampled
        common = ["--model", model, "--dataset", "files", "--max-steps", 1, "--rows-per-step", 2, "--max-length", 320]
        run("train", "sft", *common, "--dataset-path", "t.jsonl", "--output-dir", "sft")

    @pytest.mark.parametrize(
        ("more", "told"),
        [
            ([], "say what to write: --keep best"),
            (["--keep", "best", "--pairs", "best-worst"], "say what to write: --keep best"),
            (["--keep", "worst"], "none of best, all, top-N"),
            (["--keep", "best", "--margin", "1"], "has no effect with --keep"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, run: Run, tmp_path: Path, more: list[str], told: str):
        (tmp_path / "r.jsonl").write_text("")
        assert told in run("rollout", "select", "r.jsonl", "--output", "o.jsonl", *more, code=2).error


class TestView:
    def test_rollouts_are_filtered_and_ordered(self, run: Run, model: str, tmp_path: Path):
        run(*arguments(model, "--output-dir", "out"))
        found = rollouts(tmp_path / "out")
        best = run("rollout", "view", "out", "--sort", "-reward", "--limit", 5, "--json").out.splitlines()
        rewards = sorted((line["reward"] for line in found.values()), reverse=True)
        assert [json.loads(line)["reward"] for line in best] == rewards[:5]
        group = run("rollout", "view", "out/rollouts.jsonl", "--group", 4, "--sort", "group", "--json").out.splitlines()
        assert [(json.loads(line)["group_id"], json.loads(line)["member"]) for line in group] == [
            (4, 0),
            (4, 1),
            (4, 2),
        ]
        second = run("rollout", "view", "out", "--limit", 5, "--page", 2)
        assert f"rollouts 6 to 10 of {ROWS * GROUP}" in second.err
        assert second.out.count("mean logprob") == 5

    def test_a_page_holds_everything_and_loads_nothing(self, run: Run, model: str, tmp_path: Path):
        run(*arguments(model, "--output-dir", "out"))
        run("rollout", "view", "out", "--html", "page.html", "--limit", 7)
        page = (tmp_path / "page.html").read_text()
        assert page.count('<article class="card rollout"') == 7
        assert "http://" not in page
        assert "https://" not in page
        assert "version 0" in page
        assert 'class="t p' in page

    def test_rollouts_of_training_are_shown_alike(self, run: Run, grpo: list[object]):
        run(*grpo, "--output-dir", "trained")
        shown = run("rollout", "view", "trained", "--sort", "group", "--limit", 3)
        assert shown.out.count("mean logprob") == 3
        assert "of 16" in shown.err

    def test_a_file_without_settings_beside_it_is_shown_without_colours(self, run: Run, model: str, tmp_path: Path):
        run(*arguments(model, "--output-dir", "out", "--max-rows", 1))
        (tmp_path / "alone").mkdir()
        (tmp_path / "alone" / "deep").mkdir()
        copy = tmp_path / "alone" / "deep" / "r.jsonl"
        copy.write_bytes((tmp_path / "out" / "rollouts.jsonl").read_bytes() + b'{"torn')
        shown = run("rollout", "view", copy)
        assert "name the model with --model" in shown.err
        assert "1 lines are no whole rollouts" in shown.err
        assert shown.out.count("mean logprob") == 3

    def test_what_is_no_rollouts_is_told(self, run: Run, tmp_path: Path):
        (tmp_path / "empty").mkdir()
        assert "has no rollouts.jsonl and no rollouts/" in run("rollout", "view", "empty", code=2).error
        assert "does not exist" in run("rollout", "view", "nothing.jsonl", code=2).error


def serve(llmkit: Command, *more: object) -> tuple[Any, str]:
    """A server of scripted answers that takes its time, and its address once it takes requests."""
    slowly = ["--engine", "echo", "--set", "engine.seconds_per_token=0.02"]
    process = llmkit.start(["serve", "--model", "builtin:tiny-untrained", *slowly, "--port", 0, "--json", *more])
    document = ""
    while process.stdout is not None and (line := process.stdout.readline()):
        document += line
        if line.strip():
            return process, json.loads(document)["url"]
    raise AssertionError(process.communicate())


def test_a_server_that_is_killed_in_the_middle_costs_no_rollout(llmkit: Command, chats: Path, tmp_path: Path):
    template = ["--set", "model.chat_template=qwen"]
    servers = [serve(llmkit, *template) for _ in range(2)]
    try:
        urls = ", ".join(url for _, url in servers)
        start = [
            "rollout",
            "--model",
            "builtin:tiny-untrained",
            *template,
            "--dataset",
            "files",
            "--dataset-path",
            chats,
        ]
        start += ["--group-size", 2, "--max-new-tokens", 12, "--output-dir", "out", "--concurrency", 4]
        process = llmkit.start([*start, "--engine", "openai", "--set", f"engine.urls=[{urls}]", "--json"])
        wait_for_lines(process, tmp_path / "out" / "rollouts.jsonl", 8)
        servers[0][0].send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert json.loads(out)["num_failed"] == 0
        assert sorted(rollouts(tmp_path / "out")) == [(group, member) for group in range(40) for member in range(2)]
    finally:
        for server, _ in servers:
            server.kill()
            server.communicate(timeout=60)
