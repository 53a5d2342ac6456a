import gzip
import json
from pathlib import Path

import pytest

from .conftest import Command, Run


def test_profiles_the_steps_asked_for(llmkit: Command, sft: list[object], tmp_path: Path):
    out, err = llmkit.run(*sft, "--profile-steps", 2, "--json", "--output-dir", tmp_path / "run")
    assert json.loads(out)["num_steps"] == 4
    profile = tmp_path / "run" / "profile"
    trace = json.loads(gzip.decompress((profile / "trace.json.gz").read_bytes()))
    names = [event.get("name", "") for event in trace["traceEvents"]]
    # One step passes and one warms up before them.
    assert sorted({name for name in names if name.startswith("ProfilerStep#")}) == ["ProfilerStep#2", "ProfilerStep#3"]
    summary = (profile / "summary.txt").read_text()
    assert summary.startswith("2 steps\n")
    shares = [float(line.split("%")[0]) for line in summary.splitlines()[2:]]
    assert shares == sorted(shares, reverse=True)
    assert 50 < sum(shares) <= 101
    assert "aten::mm" in summary
    assert summary.splitlines()[2] in err
    assert "open it in https://ui.perfetto.dev" in err


@pytest.mark.parametrize("steps", [1, 2])
def test_a_short_run_is_profiled_all_the_same(steps: int, run: Run, sft: list[object], tmp_path: Path):
    run(*sft, "--max-steps", steps, "--profile", "--output-dir", tmp_path / "run")
    assert (tmp_path / "run" / "profile" / "summary.txt").read_text().startswith(f"{steps} steps\n")


def test_without_it_there_is_no_profile(run: Run, sft: list[object], tmp_path: Path):
    run(*sft, "--max-steps", 1, "--output-dir", tmp_path / "run")
    assert not (tmp_path / "run" / "profile").exists()
