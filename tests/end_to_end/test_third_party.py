"""A third party's packages, from `plugins new` to `pip uninstall`, beside llmkit in an environment of their own."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from llmkit.testing.tiny import tiny_model

FORMATTER = '''
"""A question under "ask" and its answer under "tell"."""
from llmkit.config.section import Section
from llmkit.errors import DataError
from llmkit.types import Message, Record


class Config(Section):
    """Nothing to choose."""


def build(config):
    return AskTell()


class AskTell:
    def score(self, rows):
        return sum({"ask", "tell"} <= row.values.keys() for row in rows) / max(len(rows), 1)

    def to_record(self, row):
        if not {"ask", "tell"} <= row.values.keys():
            raise DataError(f"{row.source}: no 'ask' and 'tell'")
        return Record((Message("user", row.values["ask"]),), row.source, answer=row.values["tell"])

    def from_record(self, record):
        return {"ask": record.messages[0].content, "tell": record.answer}
'''
COMMAND = '''
"""Say how many rows the sums have."""
import typer

app = typer.Typer()


@app.command()
def count(size: int = typer.Option(5, help="Rows to make.")) -> None:
    """Say how many rows the sums have."""
    import llmkit_sums
    print(len(llmkit_sums.build(llmkit_sums.Config(size=size))))
'''
ENTRY_POINTS = """
[project.entry-points."llmkit.formatters"]
ask-tell = "llmkit_sums.ask_tell"

[project.entry-points."llmkit.commands"]
count-sums = "llmkit_sums.command:app"
"""
PLUGINS = {
    ("commands", "count-sums", "llmkit-sums"),
    ("datasets", "sums", "llmkit-sums"),
    ("engines", "parrot", "llmkit-parrot"),
    ("formatters", "ask-tell", "llmkit-sums"),
    ("rewards", "kindness", "llmkit-kindness"),
}


class Environment:
    """A virtual environment that sees the packages of this one, llmkit among them, and can have its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / "venv" / "bin" / "python"
        self._run([sys.executable, "-m", "venv", "--without-pip", str(directory / "venv")])
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        link = directory / "venv" / "lib" / version / "site-packages" / "linked.pth"
        link.write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")

    def pip(self, *arguments: str) -> None:
        self._run(
            [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check", *arguments]
        )

    def llmkit(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        done = self._run([str(self.python), "-m", "llmkit", *arguments], code)
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout, done.stderr

    def _run(self, command: list[str], code: int = 0) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "HF_HUB_OFFLINE": "1", "LLMKIT_CACHE": str(self.directory / "cache")}
        done = subprocess.run(command, cwd=self.directory, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("third-party"))


def make_packages(environment: Environment) -> list[str]:
    """Three packages made by `plugins new`; one is edited by hand to hold a formatter and a command too."""
    for kind, name in (("dataset", "sums"), ("reward", "kindness"), ("engine", "parrot")):
        environment.llmkit("plugins", "new", kind, name)
    sums = environment.directory / "llmkit-sums"
    front = sums / "src" / "llmkit_sums" / "__init__.py"
    front.write_text(front.read_text().replace('"question"', '"ask"').replace('"answer"', '"tell"'))
    (front.parent / "ask_tell.py").write_text(FORMATTER)
    (front.parent / "command.py").write_text(COMMAND)
    project = sums / "pyproject.toml"
    project.write_text(project.read_text() + ENTRY_POINTS)
    return ["llmkit-sums", "llmkit-kindness", "llmkit-parrot"]


def test_packages_are_made_installed_used_by_name_and_removed(environment: Environment) -> None:
    packages = make_packages(environment)
    environment.pip(
        "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", *(f"./{name}" for name in packages)
    )

    listed = json.loads(environment.llmkit("plugins", "list", "--json")[0])
    theirs = [one for one in listed if one["package"] in packages]
    assert {(one["kind"], one["name"], one["package"]) for one in theirs} == PLUGINS
    assert {one["state"] for one in theirs} == {"ok"}

    assert "  count-sums  Say how many rows the sums have." in environment.llmkit("--help")[0]
    assert environment.llmkit("count-sums", "--size", "7")[0] == "7\n"
    assert "Did you mean 'count-sums'?" in environment.llmkit("count-sum", code=2)[1]

    options = "--dataset sums --engine parrot --reward kindness --set formatter.name=ask-tell --set dataset.size=20"
    limits = "--max-steps 1 --prompts-per-step 2 --group-size 2 --max-new-tokens 8 --max-length 128 --device cpu"
    line = ["train", "grpo", "--model", tiny_model(), *options.split(), *limits.split()]
    environment.llmkit(*line, "--output-dir", "run", "--json")
    rollouts = [
        json.loads(row)
        for path in (environment.directory / "run" / "rollouts").glob("*.jsonl")
        for row in path.read_text().splitlines()
    ]
    assert {"sums"} == {row["source"].partition(":")[0] for row in rollouts}
    assert {row["reward"] for row in rollouts} <= {0.0, 1.0}

    environment.pip("uninstall", "--quiet", "--yes", *packages)
    assert "count-sums" not in environment.llmkit("--help")[0]
    error = environment.llmkit(*line, "--output-dir", "other", code=2)[1]
    assert "'parrot'" in error
    assert "'kindness'" in error
    assert "'sums'" in error
    assert "No command named 'count-sums'" in environment.llmkit("count-sums", code=2)[1]
