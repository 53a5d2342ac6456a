from pathlib import Path

import pytest

from llmkit import plugins
from llmkit.config import presets as module
from llmkit.config.presets import find_preset, list_presets
from llmkit.config.resolve import resolve
from llmkit.config.runs import SCHEMAS
from llmkit.errors import ConfigError

WAITING_FOR = {"train/dpo/preference": ["dataset.path=pairs.jsonl"]}
"""What a user has to add to a preset, because nobody else can know it."""


def test_the_folder_of_the_command_comes_first(presets):
    own, full = presets("train/grpo/gsm8k", "seed: 1"), presets("gsm8k", "seed: 2")
    assert find_preset("train/grpo", "gsm8k") == own
    assert find_preset("train/grpo", "train/grpo/gsm8k") == own
    assert find_preset("train/sft", "gsm8k") == full
    assert find_preset("", "gsm8k") == full


def test_plugins_come_after_ours_and_can_be_named(presets, tmp_path, monkeypatch):
    ours = presets("train/grpo/gsm8k", "seed: 1")
    theirs = tmp_path / "theirs"
    (theirs / "train/grpo").mkdir(parents=True)
    for name in ("gsm8k", "extra"):
        (theirs / f"train/grpo/{name}.yaml").write_text("# Theirs.\n")
    roots = module.preset_roots()
    monkeypatch.setattr(module, "preset_roots", lambda: [*roots, ("llmkit-more", theirs)])
    assert find_preset("train/grpo", "gsm8k") == ours
    assert find_preset("train/grpo", "extra") == theirs / "train/grpo/extra.yaml"
    assert find_preset("train/grpo", "llmkit-more:gsm8k") == theirs / "train/grpo/gsm8k.yaml"
    assert [(one.package, one.summary) for one in list_presets("train/grpo")] == [
        ("llmkit", ""),
        ("llmkit-more", "Theirs."),
        ("llmkit-more", "Theirs."),
    ]


def test_installed_preset_packages_are_searched(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("seed: 4")
    monkeypatch.setattr(plugins, "preset_dirs", lambda: [("llmkit-mine", tmp_path)])
    assert find_preset("train/grpo", "mine") == tmp_path / "mine.yaml"


def test_a_path_is_the_last_resort(presets, file):
    presets("train/sft/small", "seed: 1")
    path = file("mine.yaml", "seed: 2")
    assert find_preset("train/sft", "mine.yaml") == path
    assert find_preset("train/sft", str(path.resolve())) == path.resolve()


@pytest.mark.parametrize("name", ["../secret", "/etc/hosts", "a/../../secret"])
def test_names_do_not_lead_out_of_the_folder(presets, tmp_path, monkeypatch, name):
    presets("train/sft/small", "seed: 1")
    (tmp_path / "secret.yaml").write_text("seed: 1")
    monkeypatch.chdir(tmp_path / "presets" / "train")
    with pytest.raises(ConfigError, match="no preset or file named"):
        find_preset("train", name if name != "/etc/hosts" else str(tmp_path / "secret"))


def test_unknown_names_get_suggestions(presets):
    presets("train/grpo/gsm8k", ""), presets("train/grpo/math", ""), presets("train/sft/chat", "")
    with pytest.raises(
        ConfigError, match=r"named 'gsm8j'\. Did you mean 'gsm8k'\? All of them: llmkit presets list train/grpo"
    ):
        find_preset("train/grpo", "gsm8j")
    with pytest.raises(ConfigError, match=r"for train/grpo there are: gsm8k, math\."):
        find_preset("train/grpo", "zzz")
    with pytest.raises(ConfigError, match=r"Did you mean 'train/sft/chat'\?"):
        find_preset("train/grpo", "chat")


def test_extends_is_a_chain_and_earlier_is_lower(presets, paint):
    presets("paint/base", "seed: 1\ntitle: base\nbrush: {width: 2, strokes: 2}\n")
    presets("paint/wide", "extends: base\nbrush: {width: 9}\n")
    presets("paint/named", "extends: [base]\ntitle: named\n")
    presets("paint/top", "extends: [wide, named]\nseed: 4\n")
    run = paint(preset="top").run
    assert (run.seed, run.title, run.brush.width, run.brush.strokes) == (4, "named", 9.0, 2)


def test_a_shared_base_counts_once_at_its_lowest_place(presets, paint):
    presets("paint/base", "brush: {width: 2}\n")
    presets("paint/wide", "extends: base\nbrush: {width: 9}\n")
    presets("paint/top", "extends: [wide, base]\n")
    assert paint(preset="top").run.brush.width == 9.0


def test_rings_name_every_file(presets, paint, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    presets("paint/a", "extends: b"), presets("paint/b", "seed: 1\nextends:\n  - c"), presets("paint/c", "extends: [a]")
    with pytest.raises(ConfigError) as caught:
        paint(preset="a")
    assert str(caught.value) == (
        "presets/paint/c.yaml:1:11: extends: a ring: presets/paint/a.yaml -> presets/paint/b.yaml -> "
        "presets/paint/c.yaml -> presets/paint/a.yaml; take one of them out"
    )


def test_extends_faults_have_the_place(presets, paint, file):
    with pytest.raises(ConfigError, match=r"^run.yaml:1:10: extends: no preset or file named 'nobody'"):
        paint(files=[file("run.yaml", "extends: nobody")])
    with pytest.raises(ConfigError, match=r"^run.yaml:1:11: extends: must be a preset, a file, or a list of them"):
        paint(files=[file("run.yaml", "extends: [3]")])


def test_files_extend_presets_and_files_beside_them(presets, paint, file):
    presets("paint/base", "seed: 1\ntitle: base")
    Path("sub").mkdir()
    file("sub/near.yaml", "title: near")
    assert paint(files=[file("sub/run.yaml", "extends: [base, near.yaml]\nframed: true")]).tree["title"] == "near"


def test_an_unknown_preset_names_the_option(presets, paint):
    with pytest.raises(ConfigError, match=r"^--preset nobody: no preset or file named 'nobody'"):
        paint(preset="nobody")


# Those of benchmarks hold options of their commands, and tests/bench looks at them.
RUNS = [preset for preset in list_presets() if not preset.name.startswith("bench/")]


@pytest.mark.parametrize("preset", RUNS, ids=lambda preset: preset.name)
def test_every_shipped_preset_resolves_and_says_what_it_is(preset):
    assert preset.summary
    overrides = ["dataset.name=arithmetic"] if preset.is_algorithm else WAITING_FOR.get(preset.name, [])
    resolve(SCHEMAS[preset.command], command=preset.command, preset=preset.name, overrides=overrides, environ={})


def test_an_algorithm_belongs_to_its_command(presets):
    presets("train/grpo/gsm8k", "# Whole."), presets("train/grpo/algorithms/dapo", "# Part.")
    whole, part = sorted(list_presets("train/grpo"), key=lambda preset: preset.is_algorithm)
    assert (whole.is_algorithm, part.is_algorithm) == (False, True)
    assert (part.command, part.short_name, part.name) == ("train/grpo", "dapo", "train/grpo/algorithms/dapo")
    assert find_preset("train/grpo", "algorithms/dapo") == part.path
