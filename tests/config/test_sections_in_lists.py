"""A plugin's list of sections that hold plugins themselves: it resolves, explains itself and hides its secrets."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from llmkit.config.comparing import Difference
from llmkit.config.docs import describe
from llmkit.config.json_schema import json_schema
from llmkit.config.masking import MASK
from llmkit.config.resolve import resolve, semantic_differences
from llmkit.config.runs import SFTRun
from llmkit.config.section import PluginKind, PluginSection, Section
from llmkit.config.show import schema_text
from llmkit.errors import ConfigError


class Room(Section):
    """A room of an exhibition."""

    gallery: Annotated[PluginSection, PluginKind("galleries")]
    """Who lends the pictures."""
    canvas: Annotated[PluginSection, PluginKind("canvases", "paper")]
    """What is on the walls."""
    spare: Annotated[PluginSection | None, PluginKind("canvases")] = None
    """What is in the cellar."""
    lamps: int = Field(4, ge=1)
    """Number of lamps."""


class Biennale(Section):
    """Rooms of several galleries."""

    rooms: tuple[Room, ...] = Field(min_length=1)
    """The rooms, in order."""
    city: str = "Venice"
    """Where it is."""


@pytest.fixture(autouse=True)
def _biennale(add_plugin) -> None:
    add_plugin("galleries", "biennale", Biennale)


TEXT = """\
galleries:
  - name: biennale
    rooms:
      - gallery: louvre
        lamps: 2
      - gallery: {name: tate, url: here, token: '${env:TOKEN}'}
        canvas: {name: linen, threads: 9}
"""
ENVIRON = {"TOKEN": "geheim"}


@pytest.fixture
def shown(paint, file):
    """Resolves the file above with overrides."""

    def run(*overrides: str):
        return paint(*overrides, files=[file("run.yaml", TEXT)], environ=ENVIRON)

    return run


def rooms(resolved):
    return resolved.tree["galleries"][0]["rooms"]


def test_each_item_gets_the_plugins_that_it_chooses(shown):
    first, second = shown().run.galleries[0].rooms
    assert (first.gallery.name, first.canvas.name, first.spare, first.lamps) == ("louvre", "paper", None, 2)
    assert (second.gallery.url, second.canvas.threads, second.lamps) == ("here", 9, 4)
    assert isinstance(first, Room)


def test_items_are_changed_one_by_one(shown):
    resolved = shown(
        "galleries.0.rooms.0.lamps=7", "galleries.0.rooms.0.gallery.url=there", "galleries.0.rooms.1.canvas=paper",
        "galleries.0.rooms.1.spare=linen", "galleries.0.rooms.1.spare.threads=3",
    )  # fmt: skip
    first, second = rooms(resolved)
    assert (first["lamps"], first["gallery"]["url"]) == (7, "there")
    assert second["canvas"] == {"name": "paper"}
    assert second["spare"] == {"name": "linen", "threads": 3, "label": ""}
    assert second["gallery"]["url"] == "here"


def test_the_resolved_file_alone_gives_the_run(shown, tmp_path: Path):
    first = shown("galleries.0.rooms.0.lamps=7")
    text = first.to_yaml()
    assert "      - gallery:\n          name: louvre  # run.yaml:4:18\n" in text
    assert "        lamps: 7  # --set galleries.0.rooms.0.lamps\n" in text
    assert 'token: "${env:TOKEN}"  # run.yaml:6:49' in text
    path = tmp_path / "config.yaml"
    path.write_text(text)
    again = resolve(first.schema, command="paint", files=[path], environ=ENVIRON)
    assert again.tree == first.tree
    assert again.semantic_hash() == first.semantic_hash()


def test_secrets_of_items_are_masked(shown):
    resolved = shown("galleries.0.rooms.0.gallery.token=geheim")
    texts = [resolved.to_yaml(), str(resolved.masked()), str(resolved.explain("galleries.0.rooms.0.gallery.token"))]
    assert not [text for text in texts if "geheim" in text]
    assert [room["gallery"]["token"] for room in resolved.masked()["galleries"][0]["rooms"]] == [MASK, MASK]


def test_a_secret_typed_inside_a_list_does_not_show_where_the_list_is_explained(paint):
    resolved = paint("galleries=[{name: biennale, rooms: [{gallery: {name: tate, token: geheim}}]}]")
    shown = [str(resolved.explain(key)) for key in ("galleries", "galleries.0.rooms", "galleries.0.rooms.0.gallery")]
    assert not [text for text in shown if "geheim" in text]


def test_keys_of_items_are_explained(shown):
    resolved = shown("galleries.0.rooms.0.lamps=7")
    lamps = resolved.explain("galleries.0.rooms.0.lamps")
    assert (lamps.value, lamps.origin.place, lamps.doc.help) == (
        7, "--set galleries.0.rooms.0.lamps", "Number of lamps."
    )  # fmt: skip
    assert [lower.place for lower in lamps.overridden] == ["run.yaml:5:16"]
    assert (lamps.doc.default, lamps.doc.limits) == (4, "at least 1")
    gallery = resolved.explain("galleries.0.rooms.0.gallery")
    assert (gallery.doc.help, gallery.doc.type_text) == ("Who lends the pictures.", "a plugin of the kind galleries")
    name = resolved.explain("galleries.0.rooms.0.gallery.name")
    assert (name.origin.place, name.origin.text, name.doc.is_required) == ("run.yaml:4:18", "louvre", True)
    assert resolved.explain("galleries.0.rooms.1.canvas.name").doc.default == "paper"
    assert resolved.explain("galleries.0.rooms.1.canvas.threads").doc.help == "Threads per centimetre."
    assert resolved.explain("galleries.0.rooms.0").doc.help == "A room of an exhibition."
    assert resolved.explain("galleries.0.rooms").doc.type_text == "list of sections"
    assert resolved.explain("galleries").doc.type_text == "list of plugin sections"


def test_a_plugin_inside_one_that_is_not_the_default_is_explained(paint):
    resolved = paint("paint=water")
    assert resolved.explain("paint.wash").doc.help == "What to wash with; a plugin inside a plugin."
    assert resolved.explain("paint.wash.name").doc.default == "oil"


def test_every_mistake_in_items_is_told_at_its_place(paint, file):
    path = file(
        "run.yaml",
        "galleries:\n  - name: biennale\n    rooms:\n      - gallery: luvre\n        lamps: 0\n"
        "      - gallery: {name: tate, urll: x}\n        canvas: [1]\n      - lamps: 3\n      - 3\n"
        "      - gallery: louvre\n        spare: {threads: 3}\n        lampen: 3\n",
    )
    with pytest.raises(ConfigError) as caught:
        paint(files=[path])
    assert str(caught.value).splitlines() == [
        "run.yaml:4:18: galleries.0.rooms.0.gallery.name: No galleries named 'luvre'. "
        "Installed: louvre, tate, biennale.",
        "run.yaml:5:16: galleries.0.rooms.0.lamps: must be at least 1, got 0",
        "run.yaml:6:31: galleries.0.rooms.1.gallery.urll: unknown key. Did you mean 'url'?",
        "run.yaml:7:17: galleries.0.rooms.1.canvas: must be the name of one of canvases, or a section with a 'name'",
        "run.yaml:8:9: galleries.0.rooms.2.gallery: not set; choose one with --set "
        "galleries.0.rooms.2.gallery.name=NAME. Installed: biennale, louvre, tate",
        "run.yaml:9:9: galleries.0.rooms.3: must be a section, got 3",
        "run.yaml:11:16: galleries.0.rooms.4.spare.name: not set; choose one with --set "
        "galleries.0.rooms.4.spare.name=NAME. Installed: linen, paper",
        "run.yaml:12:9: galleries.0.rooms.4.lampen: unknown key. Did you mean 'lamps'?",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[]", "must have at least 1 item, got the list []"),
        ("3", "must be a list of sections, got 3. Write [3]"),
        ("null", "must be a list of sections, got null"),
    ],
)
def test_lists_that_are_none(paint, value: str, message: str):
    with pytest.raises(ConfigError) as caught:
        paint(f"galleries=[{{name: biennale, rooms: {value}}}]")
    assert str(caught.value) == f"--set galleries: galleries.0.rooms: {message}"


def test_a_change_of_an_item_changes_the_hash_where_it_decides_something():
    def mixture(weight: float):
        return resolve(
            SFTRun, command="train/sft", environ={},
            overrides=[f"dataset={{name: mixture, sources: [{{dataset: arithmetic, weight: {weight}}}]}}"],
        )  # fmt: skip

    one, two = mixture(1.0), mixture(2.0)
    assert one.semantic_hash() == mixture(1.0).semantic_hash() != two.semantic_hash()
    assert semantic_differences(one.tree, two.tree, SFTRun) == [("dataset.sources.0.weight", 1.0, 2.0)]


def test_two_runs_differ_in_a_key_of_an_item(file, monkeypatch):
    from llmkit.config.comparing import compare

    text = "dataset:\n  name: mixture\n  sources:\n    - dataset: {name: arithmetic, size: "
    one, two = (str(file(f"{size}.yaml", f"{text}{size}}}\n")) for size in (5, 6))
    (difference,) = compare(f"./{one}", f"./{two}", "train/sft", {})
    assert isinstance(difference, Difference)
    assert (difference.path, difference.values) == ("dataset.sources.0.dataset.size", (5, 6))


def test_editors_are_offered_the_plugins_of_items_and_a_mixture_in_a_mixture():
    document, _ = json_schema(SFTRun, "train/sft")
    assert document["$defs"]["mixture_datasets"]["properties"]["sources"]["items"] == {"$ref": "#/$defs/SourceConfig"}
    dataset = document["$defs"]["SourceConfig"]["properties"]["dataset"]["anyOf"]
    assert {"mixture", "files"} <= set(dataset[0]["enum"])
    assert {"$ref": "#/$defs/files_datasets"} in dataset
    assert document["$defs"]["mixture_datasets_inside"]["additionalProperties"] is True
    assert document["$defs"]["SourceConfig"]["properties"]["formatter"]["default"] == "auto"


def test_the_table_of_keys_lists_those_of_items():
    text = schema_text(SFTRun)
    assert "    dataset.sources.0.weight: number, greater than 0, default 1.0\n" in text
    assert "    dataset.sources.0.formatter: a plugin of the kind formatters, default auto\n" in text


def test_without_a_run_the_keys_of_items_depend_on_the_plugin():
    assert describe(SFTRun, "dataset.sources").type_text == "depends on the plugin"
