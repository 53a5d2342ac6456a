"""Presets of benchmarks: every one that comes along names options that there are, and what is typed wins."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from llmkit import cli
from llmkit.bench.cli import app
from llmkit.bench.presets import check_preset, option_names, take_preset
from llmkit.config.presets import list_presets
from llmkit.errors import ConfigError

BENCH = list_presets("bench")


@pytest.fixture
def context(request: pytest.FixtureRequest) -> typer.Context:
    """Of one benchmark's command."""
    group = typer.main.get_command(app)
    command = group.commands[request.param]  # type: ignore[attr-defined]
    return command.make_context(request.param, [], resilient_parsing=True)


@pytest.mark.parametrize("preset", BENCH, ids=lambda preset: preset.name)
def test_every_preset_says_what_it_is_and_names_options_that_there_are(preset):
    assert preset.summary
    taken = check_preset(preset.command.partition("/")[2], preset.short_name)
    assert {key: value for key, value in taken.items() if value} != {"preset": preset.short_name}


def test_there_are_presets_of_every_benchmark():
    measured = {"serve", "throughput", "latency", "train", "data", "startup", "weights", "convert"}
    assert {preset.command.partition("/")[2] for preset in BENCH} == measured


def test_what_is_typed_wins(tmp_path: Path):
    seen = {}
    small = typer.Typer()

    @small.command("train")
    def train(preset: take_option() = None, rate: list[float] = [], steps: int = 1, name: str = "x") -> None:  # noqa: B006
        seen.update(rate=rate, steps=steps, name=name)

    file = tmp_path / "mine.yaml"
    file.write_text("rate: 2\nsteps: 7\nname: y\n")
    done = CliRunner().invoke(small, ["--preset", str(file), "--steps", "9"], prog_name="train")
    assert done.exit_code == 0, done.output
    assert seen == {"rate": [2.0], "steps": 9, "name": "y"}


def take_option() -> object:
    from llmkit.bench.presets import Preset

    return Preset


@pytest.mark.parametrize("context", ["serve"], indirect=True)
def test_names_are_those_of_the_options(context: typer.Context):
    assert {"input_tokens", "set", "json", "slo"} <= option_names(context).keys()
    assert not {"preset", "help"} & option_names(context).keys()


def test_a_wrong_name_has_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "mine.yaml"
    file.write_text("requests: 5\ninput_token: 4\n")
    assert cli.run(["bench", "serve", "--preset", str(file)]) == 2
    assert f"{file}:2:" in (said := capsys.readouterr().err)
    assert "no option 'input_token'. Did you mean 'input_tokens'?" in said
    assert cli.run(["bench", "serve", "--preset", "chatt"]) == 2
    assert "Did you mean 'chat'?" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        take_preset(typer.Context(typer.main.get_command(typer_of_nothing()), info_name="serve"), "nobody")


def typer_of_nothing() -> typer.Typer:
    empty = typer.Typer()
    empty.command()(lambda: None)
    return empty
