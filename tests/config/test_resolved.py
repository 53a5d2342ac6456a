from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmkit.config.masking import MASK
from llmkit.config.resolve import resolve
from llmkit.config.runs import GRPORun
from llmkit.config.scalars import write_flow
from llmkit.config.tree import Origin
from llmkit.errors import ConfigError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.floats(min_value=1e-12, max_value=10, exclude_min=True)


def again(resolved, tmp_path: Path, environ=None):
    """The same run from its own file alone."""
    path = tmp_path / "config.yaml"
    path.write_text(resolved.to_yaml(), encoding="utf-8")
    schema = resolved.schema
    return resolve(schema, command=resolved.command, files=[path], environ=environ or {})


def test_tree_has_every_setting(paint):
    assert paint("galleries=[tate]").tree == {
        "seed": 0, "title": None, "output_dir": None, "framed": False,
        "brush": {"width": 1.0, "strokes": 3, "mix": [0.5, 0.5], "style": "dry"},
        "paint": {"name": "oil", "thinner": 0.1, "tags": []},
        "canvas": {"name": "linen", "threads": 20, "label": ""},
        "second": None, "galleries": [{"name": "tate", "token": None, "url": "https://example.org"}], "notes": {},
    }  # fmt: skip


def test_yaml_says_where_each_value_came_from(paint, presets, file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    presets("paint/base", "brush:\n  width: 2\n")
    run = paint(
        "brush.mix.0=0.9", "title=${brush.style}", preset="base", files=[file("run.yaml", "galleries:\n- tate\n")],
        environ={"LLMKIT__SEED": "3"}, options={"framed": ("--framed", True)},
    )  # fmt: skip
    lines = run.to_yaml().splitlines()
    assert lines[0] == "# llmkit paint"
    for line in (
        "seed: 3  # LLMKIT__SEED",
        "title: dry  # --set title ${brush.style}",
        "framed: true  # --framed",
        "  width: 2.0  # presets/paint/base.yaml:2:10",
        "  strokes: 3  # default",
        "  mix: [0.9, 0.5]  # default; 0: --set brush.mix",
        "  name: linen  # --set canvas",
        "  - name: tate  # run.yaml:2:3",
        "    token: null  # default",
    ):
        assert any(found.startswith(line) for found in lines), line


def test_the_resolved_file_alone_gives_the_run(paint, tmp_path, file):
    low = file("low.yaml", "paint: {name: water, wash: {tags: [no, '012', '${x']}}\n".replace("'${x'", "'$${x}'"))
    first = paint("notes={a: {b: 'x # y'}, 'yes': 1, '': '~'}", "title=a: b", "galleries=[louvre]", files=[low])
    second = again(first, tmp_path)
    assert second.tree == first.tree
    assert second.semantic_hash() == first.semantic_hash()
    assert again(second, tmp_path).tree == first.tree


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(title=st.none() | TEXTS, width=NUMBERS, notes=st.dictionaries(TEXTS, TEXTS | st.integers(), max_size=3))
def test_any_values_survive_the_resolved_file(paint, tmp_path, title, width, notes):
    options = {"title": ("--title", title), "brush.width": ("--width", width)}
    from llmkit.config.references import escape

    escaped = {key: escape(value) if isinstance(value, str) else value for key, value in notes.items()}
    if title is not None:
        options["title"] = ("--title", escape(title))
    first = paint(f"notes={write_flow(escaped)}", options=options)
    assert (first.run.title, first.run.brush.width, first.run.notes) == (title, width, notes)
    assert again(first, tmp_path).tree == first.tree


def test_a_real_run_survives_its_file_and_any_yaml_reader_agrees(tmp_path):
    overrides = ["dataset=arithmetic", "eval_dataset=${dataset}", "optim.learning_rate=1e-6", "trackers=[jsonl, wandb]"]
    first = resolve(GRPORun, command="train/grpo", overrides=overrides, environ={})
    assert again(first, tmp_path).tree == first.tree
    assert yaml.safe_load(first.to_yaml()) == first.tree


def test_secrets_are_masked_wherever_they_show(paint):
    run = paint(
        "galleries=[tate]",
        "galleries.0.token=geheim",
        "galleries.0.url=https://${galleries.0.token}@x",
        "title=${galleries.0.url}",
    )
    assert run.run.galleries[0].token.get_secret_value() == "geheim"
    assert run.tree["galleries"][0]["token"] == "geheim"
    assert run.run.title == "https://geheim@x"
    shown = [run.to_yaml(), str(run.masked()), str(run.explain("galleries.0.token")), str(run.run.galleries[0].token)]
    shown += [str(run.explain("title")), str(run.explain("galleries.0.url")), str(run.value("title"))]
    assert not [text for text in shown if "geheim" in text]
    assert run.masked()["galleries"][0]["token"] == MASK
    assert run.masked()["title"] == MASK


def test_secrets_from_the_environment_stay_references(paint, tmp_path):
    environ = {"TOKEN": "geheim"}
    for run in (
        paint("galleries=[{name: tate, token: '${env:TOKEN}'}]", environ=environ),
        paint("galleries=[tate]", "galleries.0.token=${env:TOKEN:-other}", environ=environ),
    ):
        assert 'token: "${env:TOKEN}"' in run.to_yaml()
        assert again(run, tmp_path, environ).tree == run.tree
    run = paint("galleries=[tate]", "seed=1", environ={"LLMKIT__SECOND": "paper"})
    assert "second:\n  name: paper  # LLMKIT__SECOND\n" in run.to_yaml()


def test_a_masked_secret_is_not_taken_for_the_secret(paint, tmp_path):
    first = paint("galleries=[tate]", "galleries.0.token=geheim")
    with pytest.raises(
        ConfigError, match=r"galleries\.0\.token: the value was masked when this was written; give it again"
    ):
        again(first, tmp_path)
    path = tmp_path / "config.yaml"
    looked_at = resolve(first.schema, command="paint", files=[path], environ={}, keep_masked=True)
    assert looked_at.tree["galleries"][0]["token"] == MASK
    repaired = resolve(
        first.schema, command="paint", files=[path], overrides=["galleries.0.token=${env:T}"], environ={"T": "geheim"}
    )
    assert repaired.tree == first.tree


def test_origin(paint, file):
    run = paint("brush.mix.1=0.7", files=[file("run.yaml", "brush:\n  width: 2e0\n")])
    assert run.origin("brush.width") == Origin("file", "run.yaml:2:10", "2e0")
    assert run.origin("brush.strokes") == Origin("default", "default")
    assert run.origin("canvas.name").place == "--set canvas"
    assert run.origin("brush.mix.1").place == "--set brush.mix.1"
    assert run.origin("brush").layer == "file"
    with pytest.raises(ConfigError, match=r"^brush\.wdth: no such key\. Did you mean 'width'\?"):
        run.origin("brush.wdth")
    with pytest.raises(ConfigError, match="no such key"):
        run.origin("brush.mix.2")


def test_explain_tells_value_history_and_meaning(paint, presets, file):
    presets("paint/base", "brush:\n  width: 2\n")
    presets("paint/top", "extends: base\nbrush:\n  width: 3\n")
    run = paint("brush.width=${brush.strokes}", preset="top", files=[file("run.yaml", "brush: {width: 4}\n")])
    one = run.explain("brush.width")
    assert (one.value, one.origin.place, one.written) == (3.0, "--set brush.width", "${brush.strokes}")
    assert [(lower.layer, lower.text) for lower in one.overridden] == [("preset", "2"), ("preset", "3"), ("file", "4")]
    assert (one.doc.help, one.doc.type_text, one.doc.default) == ("Width in millimetres.", "number", 1.0)
    assert one.doc.limits == "greater than 0 and at most 10"


def test_explain_resets_items_plugins_and_sections(paint, file):
    low = file("run.yaml", "seed: 4\npaint: {name: water, sheets: 9}\n")
    run = paint("~seed", "paint=oil", "brush.mix.1=0.2", files=[low])
    seed = run.explain("seed")
    assert (seed.value, seed.origin.layer) == (0, "default")
    assert seed.reset_by is not None
    assert seed.reset_by.place == "--set ~seed"
    assert [lower.text for lower in seed.overridden] == ["4"]
    assert run.explain("paint.name").overridden[0].text == "water"
    assert run.explain("paint.name").doc.default == "oil"
    mix = run.explain("brush.mix")
    assert [(index, origin.place) for index, origin in mix.items] == [(1, "--set brush.mix.1")]
    assert mix.overridden == ()
    section = run.explain("brush")
    assert section.is_section
    assert section.doc.help == "How to paint."
    assert run.explain("paint").doc.type_text == "a plugin of the kind paints"


def test_leaf_paths(paint):
    run = paint("galleries=[tate]", 'notes={"a.b": 1}')
    assert run.leaf_paths("brush") == [("brush", name) for name in ("width", "strokes", "mix", "style")]
    assert run.leaf_paths("seed") == [("seed",)]
    assert run.leaf_paths("galleries") == [("galleries", "0", name) for name in ("name", "token", "url")]
    assert ("notes", "a.b") in run.leaf_paths()
    assert run.value(("notes", "a.b")) == 1


def test_explain_hides_what_is_written_around_a_secret(paint):
    environ = {"TOKEN": "geheim"}
    for written in ("pass-${env:TOKEN}", "${env:NOBODY:-pass}"):
        run = paint("galleries=[tate]", f"galleries.0.token={written}", environ=environ)
        assert "pass" not in str(run.explain("galleries.0.token")) + run.to_yaml()


def test_a_secret_inside_a_larger_variable_is_masked(paint):
    run = paint(environ={"LLMKIT__GALLERIES": "[{name: tate, token: geheim}]"})
    assert run.tree["galleries"][0]["token"] == "geheim"
    assert f'token: "{MASK}"  # LLMKIT__GALLERIES' in run.to_yaml()
