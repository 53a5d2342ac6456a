import re

from llmkit.config.resolve import resolve, semantic_differences
from llmkit.config.runs import GRPORun


def grpo(*overrides: str):
    return resolve(GRPORun, command="train/grpo", overrides=["dataset=arithmetic", *overrides], environ={})


def test_the_hash_sees_what_is_computed_and_nothing_else(paint):
    first = paint()
    assert re.fullmatch("[0-9a-f]{64}", first.semantic_hash())
    same = paint("output_dir=elsewhere", "galleries=[tate]", "galleries.0.token=x", "~title")
    assert same.semantic_hash() == first.semantic_hash()
    for change in ("seed=1", "brush.width=1.5", "canvas=paper", "paint.tags=[a]", "second=linen", "notes.a=1"):
        assert paint(change).semantic_hash() != first.semantic_hash(), change


def test_the_same_value_in_another_form_is_the_same(paint, file):
    assert paint("brush.width=2").semantic_hash() == paint("brush.width=2.0e0").semantic_hash()
    assert paint(files=[file("a.yaml", "brush: {width: 2}")]).semantic_hash() == paint("brush.width=2").semantic_hash()


def test_a_secret_never_reaches_the_hash(paint):
    given = paint("second=linen", "galleries=[tate]", "galleries.0.token=a")
    assert given.semantic_hash() == paint("second=linen", "galleries=[tate]", "galleries.0.token=b").semantic_hash()


def test_differences_name_key_and_both_values(paint):
    old, new = paint("seed=1", "output_dir=a", "brush.mix=[0.1, 0.9]"), paint("seed=2", "output_dir=b", "second=paper")
    expected = [
        ("brush.mix", [0.1, 0.9], [0.5, 0.5]),
        ("second", None, None),
        ("second.name", None, "paper"),
        ("seed", 1, 2),
    ]
    found = semantic_differences(old.tree, new.tree, new.schema)
    assert found == [one for one in expected if one[1] != one[2]]
    assert semantic_differences(old.masked(), new.masked(), type(new.run)) == found
    assert semantic_differences(new.tree, new.tree, new.schema) == []


def test_another_plugin_shows_with_its_options():
    found = semantic_differences(grpo().tree, grpo("dataset={name: files, path: x}").tree, GRPORun)
    assert ("dataset.name", "arithmetic", "files") in found
    assert ("dataset.path", None, "x") in found
    assert ("dataset.size", 10_000, None) in found


def test_cadence_and_trackers_may_change():
    assert (
        grpo().semantic_hash() == grpo("checkpoint.every_steps=7", "trackers=[jsonl]", "output_dir=x").semantic_hash()
    )
    assert semantic_differences(grpo().tree, grpo("checkpoint.every_steps=7", "trackers=[jsonl]").tree, GRPORun) == []
