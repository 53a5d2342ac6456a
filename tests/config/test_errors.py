"""Everything that a user can get wrong is told in one error, a line for each, with place and way out."""

import pytest

from llmkit.config.resolve import resolve
from llmkit.config.runs import SCHEMAS, GRPORun
from llmkit.config.shape import Slot, walk
from llmkit.config.suggestions import KNOWN_ELSEWHERE, closest
from llmkit.errors import ConfigError


def lines(call, *args, **kwargs) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    return str(caught.value).splitlines()


def grpo(*overrides: str) -> list[str]:
    return lines(resolve, GRPORun, command="train/grpo", overrides=["dataset=arithmetic", *overrides], environ={})


def test_every_error_at_once_in_the_order_of_the_layers(paint, file):
    path = file(
        "run.yaml",
        "seed: x\nbrush:\n  widht: 3\n  strokes: 0\nframed: yes\npaint:\n  name: oll\ntitel: My\n"
        "galleries: [{name: tate, urll: x}]\n",
    )
    found = lines(
        paint, "brush.mix=[1]", "nonsense=1", canvas=None, files=[path],
        environ={"LLMKIT__BRUSH__STYLE": "wett"}, options={"brush.width": ("--width", 20.0)},
    )  # fmt: skip
    assert found == [
        "run.yaml:1:7: seed: must be a whole number, got the text 'x'",
        "run.yaml:3:3: brush.widht: unknown key. Did you mean 'width'?",
        "run.yaml:4:12: brush.strokes: must be at least 1, got 0",
        "run.yaml:5:9: framed: must be true or false, got the text 'yes'. Write true",
        "run.yaml:7:9: paint.name: No paints named 'oll'. Installed: oil, water.",
        "run.yaml:8:1: titel: unknown key. Did you mean 'title'?",
        "run.yaml:9:26: galleries.0.urll: unknown key. Did you mean 'url'?",
        "LLMKIT__BRUSH__STYLE: brush.style: must be one of 'dry', 'wet', got the text 'wett'. Did you mean 'wet'?",
        "--width: brush.width: must be greater than 0 and at most 10, got 20.0",
        "--set brush.mix=[1]: must be a list of 2 numbers, got the list [1]",
        "--set nonsense=1: unknown key. Keys of a run: seed, title, output_dir, framed, brush, paint, canvas, second, "
        "galleries, notes.",
        "canvas: not set; choose one with --set canvas.name=NAME. Installed: linen, paper",
    ]


def test_what_cannot_be_read_is_told_together(paint, file):
    path = file("run.yaml", "a: b: c\n")
    found = lines(
        paint, "seed", "a=[1", preset="nobody", files=[path, file("two.yaml", "- 1")], environ={"LLMKIT____": "1"}
    )
    assert [line.partition(": ")[0] for line in found] == [
        "--preset nobody", "run.yaml:1:5", "two.yaml:1:1", "LLMKIT____", "--set seed", "--set a=[1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learnig_rate=1", "--set optim.learnig_rate=1: unknown key. Did you mean 'learning_rate'?"),
        ("optim.lr=3", "--set optim.lr=3: unknown key. Did you mean 'learning_rate'?"),
        ("engine.tp=2", "--set engine.tp=2: unknown key. engine.name=native has no 'tp'; these engines have: "),
        ("engine.x=2", "--set engine.x=2: unknown key. engine.name=native has the options runner, cuda_graphs, "),
        ("lr=3", "--set lr=3: unknown key. 'lr' lives at optim.learning_rate."),
        ("train.lr=3", "--set train.lr=3: train: unknown key. 'lr' lives at optim.learning_rate."),
        ("group_size=8", "--set group_size=8: unknown key. 'group_size' lives at algorithm.group_size."),
        ("learning-rate=1", "--set learning-rate=1: unknown key. 'learning-rate' lives at optim.learning_rate."),
        ("optim.group_size=8", "'group_size' lives at algorithm.group_size."),
        ("model_name_or_path=x", "'model_name_or_path' lives at model.path."),
        ("num_generations=8", "'num_generations' lives at algorithm.group_size."),
        ("optin.learning_rate=1", "optin: unknown key. Did you mean 'optim'?"),
        ("engine.max_batch=1", "--set engine.max_batch=1: unknown key. Did you mean 'max_batch_size'?"),
        (
            "~optim.learnig_rate",
            "--set ~optim.learnig_rate: optim.learnig_rate: unknown key. Did you mean 'learning_rate'?",
        ),
        ("optim.learning_rate=-1", "--set optim.learning_rate=-1: must be at least 0, got -1"),
        ("optim.learning_rate='1e-4'", "must be a number, got the text '1e-4'. Write 0.0001, without quotes"),
        (
            "optim.learning_rate=1_0",
            "must be a number, got the text '1_0'. Write 10, without quotes, underscores or commas",
        ),
        ("optim.learning_rate=", "must be a number, got null"),
        ("optim.learning_rate.x=1", "must be a number, got a section"),
        ("max_steps=1e3", "must be a whole number or null, got 1000.0. Write 1000"),
        ("max_steps=1.5", "must be a whole number or null, got 1.5"),
        ("max_steps=0", "must be at least 1, got 0"),
        ("seed=true", "must be a whole number, got true"),
        ("model.trust_remote_code=1", "must be true or false, got 1"),
        ("optim=3", "--set optim=3: must be a section, got 3"),
        ("optim=null", "--set optim=null: must be a section, got null"),
        (
            "optim.schedule=cosin",
            "must be one of 'constant', 'linear', 'cosine', 'cosine_restarts', 'wsd', 'inverse_sqrt', got the text "
            "'cosin'. Did you mean 'cosine'?",
        ),
        ("optim.optimizer.betas=0.9", "must be a list of 2 numbers, got 0.9. Write [0.9]"),
        (
            "optim.optimizer.betas.2=0.9",
            "--set optim.optimizer.betas.2=0.9: optim.optimizer.betas has 2 items; the last index is 1",
        ),
        ("optim.optimizer.betas.0=x", "--set optim.optimizer.betas.0=x: must be a number, got the text 'x'"),
        ("~optim.optimizer.betas.0", "an item of a list has no default; reset the list or set the item"),
        ("trackers.0.name=jsonl", "trackers has 0 items; set the whole list: trackers=[...]"),
        ("trackers=jsonl", "must be a list of plugin sections, got the text 'jsonl'. Write [jsonl]"),
        ("trackers=[jsnl]", "--set trackers: trackers.0.name: No tracker named 'jsnl'. Did you mean 'jsonl'?"),
        ("dataset=arithmetik", "--set dataset=arithmetik: No dataset named 'arithmetik'. Did you mean 'arithmetic'?"),
        ("dataset=[1]", "--set dataset=[1]: must be the name of one of datasets, or a section with a 'name'"),
        ("dataset.name=3", "--set dataset.name=3: must be the name of one of datasets"),
        ("dataset=files", "dataset.path: not set, and it has no default; for example --set dataset.path=VALUE"),
        (
            "eval_dataset.split=test",
            "eval_dataset.name: not set; choose one with --set eval_dataset.name=NAME. Installed: ",
        ),
    ],
)
def test_one_mistake_is_one_line_with_the_way_out(override: str, message: str):
    found = grpo(override)
    assert len(found) == 1, found
    assert message in found[0]
    assert found[0].startswith("--set ")


def test_a_dotted_key_in_a_file(paint, file):
    found = lines(paint, files=[file("run.yaml", "brush.width: 3\n")])
    assert found == [
        "run.yaml:1:1: brush.width: unknown key. "
        "A dot in a key does nothing in a file; write sections: brush: width: ..."
    ]


def test_numbers_in_text_fields_of_files_ask_for_quotes(paint, file):
    assert lines(paint, files=[file("run.yaml", "title: 012\n")]) == [
        "run.yaml:1:8: title: must be text or null, got 12. Put it in quotes"
    ]


def test_alternatives_of_a_type_are_one_error(paint):
    assert lines(paint, "notes.a=[1]") == [
        "--set notes.a=[1]: must be text or whole number or section of any keys (text), got the list [1]"
    ]


def test_secrets_do_not_show_in_errors(paint):
    (line,) = lines(paint, "galleries=[{name: tate, token: [geheim]}]")
    assert "must be text (secret) or null" in line
    assert "geheim" not in lines(paint, "galleries=[tate]", "galleries.0.token=[geheim]")[0]
    assert "geheim" not in lines(paint, "galleries=[tate]", "galleries.0.tokne=geheim")[0]


def test_closest_knows_initials_forms_and_slips():
    assert closest("lr", ["learning_rate", "eps"]) == "learning_rate"
    assert closest("Learning-Rate", ["learning_rate"]) == "learning_rate"
    assert closest("wieght_decay", ["weight_decay"]) == "weight_decay"
    assert closest("mr", ["max_rows", "min_rank"]) is None
    assert closest("xyz", ["learning_rate"]) is None


def test_what_other_toolkits_say_leads_to_keys_that_exist():
    known = {".".join(path) for schema in SCHEMAS.values() for path, _ in walk(Slot(schema))}
    for aliases in KNOWN_ELSEWHERE.values():
        assert all(any(f".{key}".endswith(f".{alias}") for key in known) for alias in aliases), aliases
