from hypothesis import given
from hypothesis import strategies as st

from llmkit.config.merging import merge
from llmkit.config.tree import Node, Origin, from_plain, plain

ORIGIN = Origin("file", "file.yaml:1:1")
LEAVES = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3)))
# As in a schema, a key holds either a value or a section, whoever sets it.
TREES = st.recursive(
    LEAVES, lambda inner: st.builds(dict.__or__, LEAVES, st.dictionaries(st.sampled_from("st"), inner)), max_leaves=6
)


def tree(value: dict) -> Node:
    return from_plain(value, ORIGIN)


def merged(lower: dict, upper: dict) -> dict:
    return plain(merge(tree(lower), tree(upper), None))


@given(TREES, TREES, TREES)
def test_layers_may_be_merged_in_any_grouping(a, b, c):
    assert merged(merged(a, b), c) == merged(a, merged(b, c))


@given(TREES)
def test_nothing_changes_nothing(a):
    assert merged(a, {}) == a
    assert merged({}, a) == a
    assert merged(a, a) == a


def test_sections_merge_and_lists_replace():
    assert merged({"o": {"a": 1, "b": [1, 2]}}, {"o": {"b": [3]}}) == {"o": {"a": 1, "b": [3]}}
    assert merged({"o": {"a": 1}}, {"o": None}) == {"o": None}


def test_naming_another_plugin_drops_the_options_of_the_former(paint):
    assert paint("canvas.threads=9", files=[]).tree["canvas"] == {"name": "linen", "threads": 9, "label": ""}


def test_choices_across_layers(paint, file):
    low = file("low.yaml", "paint:\n  name: water\n  sheets: 5\n")
    assert paint("paint=oil", files=[low]).tree["paint"] == {"name": "oil", "thinner": 0.1, "tags": []}
    assert paint("paint.name=oil", files=[low]).tree["paint"]["name"] == "oil"
    assert paint("paint.name=water", files=[low]).tree["paint"]["sheets"] == 5
    high = file("high.yaml", "paint:\n  sheets: 7\n")
    assert paint(files=[low, high]).tree["paint"]["sheets"] == 7


def test_options_of_the_default_plugin_are_dropped_too(paint, file):
    low = file("low.yaml", "paint:\n  thinner: 0.4\n")
    assert paint(files=[low]).tree["paint"]["thinner"] == 0.4
    assert paint("paint=water", files=[low]).tree["paint"]["sheets"] == 2


def test_options_wait_for_a_name_from_a_higher_layer(paint, file):
    low = file("low.yaml", "canvas:\n  threads: 9\n")
    assert paint(files=[low]).tree["canvas"]["threads"] == 9


def test_a_plugin_inside_a_plugin_merges_alike(paint, file):
    low = file("low.yaml", "paint: {name: water, wash: {name: oil, thinner: 0.5}}\n")
    assert paint("paint.wash.tags=[red]", files=[low]).tree["paint"]["wash"] == {
        "name": "oil", "thinner": 0.5, "tags": ["red"],
    }  # fmt: skip
    assert paint("paint.wash=water", files=[low]).tree["paint"]["wash"]["name"] == "water"


def test_order_within_one_layer_does_not_part_a_name_from_its_options(paint, file):
    low = file("low.yaml", "paint: water\n")
    assert paint("paint.thinner=0.3", "paint.name=oil", files=[low]).tree["paint"]["thinner"] == 0.3
    options = {"paint.thinner": ("--thinner", 0.3), "paint.name": ("--paint", "oil")}
    assert paint(files=[low], options=options).tree["paint"]["thinner"] == 0.3
    environ = {"LLMKIT__PAINT__THINNER": "0.3", "LLMKIT__PAINT__NAME": "oil"}
    assert paint(files=[low], environ=environ).tree["paint"]["thinner"] == 0.3


def test_items_of_lists(paint, file):
    assert paint("brush.mix.1=0.9").run.brush.mix == (0.5, 0.9)
    low = file("low.yaml", "galleries: [louvre, {name: tate, url: here}]\n")
    assert paint("galleries.1.url=there", "galleries.0.url=x", files=[low]).tree["galleries"] == [
        {"name": "louvre", "token": None, "url": "x"},
        {"name": "tate", "token": None, "url": "there"},
    ]
    assert paint("galleries.1=louvre", files=[low]).tree["galleries"][1]["name"] == "louvre"
    assert paint("paint.tags=[a, b]", "paint.tags.0=c").run.paint.tags == ["c", "b"]
    assert paint("galleries=[tate]", files=[low]).tree["galleries"] == [
        {"name": "tate", "token": None, "url": "https://example.org"}
    ]


def test_resets(paint, file):
    low = file("low.yaml", "seed: 5\nbrush: {width: 3, strokes: 9}\npaint: {name: water, sheets: 5}\n")
    run = paint("~seed", "~brush.width", files=[low]).run
    assert (run.seed, run.brush.width, run.brush.strokes) == (0, 1.0, 9)
    assert paint("~brush", files=[low]).run.brush.strokes == 3
    assert paint("~paint", files=[low]).tree["paint"]["name"] == "oil"
    assert paint("~paint.name", files=[low]).tree["paint"]["name"] == "oil"
    assert paint("~paint", "paint.thinner=0.7", files=[low]).tree["paint"]["thinner"] == 0.7
    assert paint("seed=1", "~seed").run.seed == 0
    assert paint("~seed", "seed=1").run.seed == 1
    assert paint("~seed").run.seed == 0
