"""What keeps llmkit quick to start and easy to change, as facts about its imports."""

import subprocess
import sys
from pathlib import Path

import pytest

from llmkit import plugins

HEAVY = {"torch", "transformers", "datasets", "numpy", "pandas", "peft", "accelerate", "tokenizers", "matplotlib"}
ROOT = Path(__file__).resolve().parents[1]
OURS = [
    plugins.find(kind, name)
    for kind in plugins.KINDS
    for name in plugins.names(kind)
    if plugins.find(kind, name).package == "llmkit"
]


def modules_after(statement: str) -> set[str]:
    """Top-level modules in a fresh Python after a statement."""
    script = f"{statement}\nimport sys\nsys.stderr.write(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("module", sorted({plugin.module for plugin in OURS if plugin.kind != "commands"}))
def test_the_front_of_a_plugin_is_light(module):
    assert not modules_after(f"import {module}") & HEAVY


@pytest.mark.parametrize("module", sorted({plugin.module for plugin in OURS if plugin.kind == "commands"}))
def test_a_command_is_lighter_still(module):
    assert not modules_after(f"import {module}") & (HEAVY | {"pydantic", "rich", "yaml"})


@pytest.mark.parametrize(
    "module", ["config.resolve", "config.runs", "config.docs", "config.presets", "types", "errors", "plugins"]
)
def test_configuration_and_what_lies_below_are_light(module):
    assert not modules_after(f"import llmkit.{module}") & HEAVY


@pytest.mark.parametrize("line", [["--help"], ["--version"], ["train", "--help"], ["plugins", "--help"]])
def test_help_imports_nothing_that_it_does_not_need(line):
    assert not modules_after(f"from llmkit.cli import run; run({line})") & (HEAVY | {"pydantic", "rich", "yaml"})


def test_help_with_defaults_reads_the_schema_and_no_more():
    assert not modules_after("from llmkit.cli import run; run(['train', 'grpo', '--help'])") & (HEAVY | {"rich"})


@pytest.mark.parametrize("plugin", OURS, ids=lambda plugin: f"{plugin.kind}-{plugin.name}")
def test_every_entry_point_of_ours_loads_and_has_a_summary(plugin):
    assert plugins.load(plugin.kind, plugin.name) is not None
    assert plugins.summary(plugin.kind, plugin.name)


def test_arrows_go_only_downwards():
    command = [Path(sys.executable).parent / "lint-imports", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_file_is_long():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "src").rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert not long
