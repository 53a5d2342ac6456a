from typing import Annotated

import pytest
from pydantic import ValidationError

from llmkit.config.resolve import resolve
from llmkit.config.runs import GRPORun, SFTRun, schema_of
from llmkit.config.section import PluginKind, PluginSection, Section, all_defaults
from llmkit.errors import ConfigError


def test_each_layer_wins_over_the_one_below(paint, presets, file):
    presets("paint/base", "seed: 2\n")
    presets("paint/top", "extends: base\nseed: 3\n")
    files = [file("a.yaml", "seed: 4\n"), file("b.yaml", "seed: 5\n")]
    environ, options = {"LLMKIT__SEED": "6"}, {"seed": ("--seed", 7)}
    given = [
        (paint(), 0, "default"),
        (paint(preset="base"), 2, "preset"),
        (paint(preset="top"), 3, "preset"),
        (paint(preset="top", files=files[:1]), 4, "file"),
        (paint(preset="top", files=files), 5, "file"),
        (paint(preset="top", files=files, environ=environ), 6, "environment"),
        (paint(preset="top", files=files, environ=environ, options=options), 7, "option"),
        (paint("seed=8", preset="top", files=files, environ=environ, options=options), 8, "set"),
        (paint("seed=8", "seed=9", preset="top"), 9, "set"),
    ]
    assert [(one.run.seed, one.origin("seed").layer) for one, _, _ in given] == [
        (seed, layer) for _, seed, layer in given
    ]


def test_the_environment_of_the_process_counts(monkeypatch, paint):
    monkeypatch.setenv("LLMKIT__SEED", "11")
    given = resolve(type(paint().run).__mro__[1], command="paint", overrides=["canvas=linen"])
    assert given.tree["seed"] == 11


def test_runs_are_frozen_and_plugin_sections_are_the_plugins_own():
    run = resolve(GRPORun, command="train/grpo", overrides=["dataset=arithmetic"], environ={}).run
    assert isinstance(run, GRPORun)
    assert isinstance(run.dataset, PluginSection)
    from llmkit.data.datasets import arithmetic

    assert isinstance(run.dataset, arithmetic.Config)
    with pytest.raises(ValidationError, match="frozen"):
        run.seed = 3


def test_plugin_sections_in_every_form(paint, file):
    for text in ("canvas: linen", "canvas: {name: linen}", "canvas:\n  name: linen\n  threads: 20"):
        assert paint(canvas=None, files=[file("run.yaml", text)]).tree["canvas"]["threads"] == 20
    assert paint().run.second is None
    assert paint("second=paper").run.second.name == "paper"
    assert paint("second=paper", "second=null").run.second is None
    assert paint("galleries=[tate, {name: louvre, url: u}]").run.galleries[1].url == "u"


def test_text_typed_in_a_shell_fits_text_fields(paint):
    run = paint("title=12", "canvas.label=1e5", "galleries=[tate]", "galleries.0.token=007", "seed=12").run
    assert (run.title, run.canvas.label, run.seed) == ("12", "1e5", 12)
    assert run.galleries[0].token.get_secret_value() == "007"
    assert paint("title=null").run.title is None
    assert paint("title=true").run.title == "true"
    assert paint("notes.a=12").run.notes == {"a": 12}


def test_keys_with_dots_live_in_free_sections(paint):
    run = paint('notes={"a.b": 1}').run
    assert run.notes == {"a.b": 1}


def test_equal_inputs_give_equal_results(paint, file):
    path = file("run.yaml", "seed: 3\nnotes: {b: 1, a: 2}\n")
    first, second = paint("brush.width=2", files=[path]), paint("brush.width=2", files=[path])
    assert first.to_yaml() == second.to_yaml()
    assert first.semantic_hash() == second.semantic_hash()


class Frame(Section):
    """A section that holds a plugin."""

    wood: Annotated[PluginSection, PluginKind("paints", "oil")]


class Room(Section):
    """A run with such a section, and another that may be absent."""

    frame: Frame = all_defaults(Frame)
    spare: Frame | None = None


def test_plugins_inside_sections():
    tree = resolve(Room, command="room", environ={}).tree
    assert tree == {"frame": {"wood": {"name": "oil", "thinner": 0.1, "tags": []}}, "spare": None}
    tree = resolve(Room, command="room", overrides=["frame.wood=water", "spare.wood.thinner=0.2"], environ={}).tree
    assert tree["frame"]["wood"]["sheets"] == 2
    assert tree["spare"]["wood"] == {"name": "oil", "thinner": 0.2, "tags": []}
    with pytest.raises(ConfigError, match=r"^--set frame=3: must be a section, got 3$"):
        resolve(Room, command="room", overrides=["frame=3"], environ={})


def test_schema_of():
    assert schema_of("train/sft") is SFTRun
    with pytest.raises(ConfigError, match=r"named 'grpo'\. Did you mean 'train/grpo'\?"):
        schema_of("grpo")
    with pytest.raises(ConfigError, match=r"named 'train/grop'\. Did you mean 'train/grpo'\?"):
        schema_of("train/grop")


def test_rules_across_sections_name_the_place_of_what_was_set():
    overrides = ["dataset=arithmetic", "sampling.max_new_tokens=5000"]
    with pytest.raises(ConfigError) as caught:
        resolve(GRPORun, command="train/grpo", overrides=overrides, environ={})
    assert str(caught.value).startswith(
        "--set sampling.max_new_tokens=5000: sampling.max_new_tokens (5000) leaves no room"
    )
