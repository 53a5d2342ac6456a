import subprocess
import sys

import pytest

from llmkit.config.docs import describe
from llmkit.config.runs import SCHEMAS, GRPORun, SFTRun
from llmkit.config.shape import Slot, walk
from llmkit.errors import ConfigError


def test_a_number():
    doc = describe(SFTRun, "optim.learning_rate")
    assert (doc.help, doc.default, doc.type_text, doc.limits) == (
        "Peak learning rate.",
        1e-5,
        "number",
        "at least 0",
    )
    assert not doc.is_required


@pytest.mark.parametrize(
    ("path", "type_text", "default"),
    [
        ("seed", "whole number", 0),
        ("max_steps", "whole number or null", None),
        ("model.path", "text", "builtin:tiny"),
        ("model.trust_remote_code", "true or false", False),
        ("optim.schedule", "one of 'constant', 'linear', 'cosine', 'cosine_restarts', 'wsd', 'inverse_sqrt'", "linear"),
        ("optim.optimizer.betas", "list of 2 numbers", (0.9, 0.999)),
        ("optim", "section", None),
        ("engine", "a plugin of the kind engines", "native"),
        ("engine.name", "name of one of engines", "native"),
        ("eval_dataset", "a plugin of the kind datasets or null", None),
        ("trackers", "list of plugins of the kind trackers", ()),
        ("dataset.path", "depends on the plugin", None),
    ],
)
def test_types_and_defaults(path, type_text, default):
    doc = describe(GRPORun, path)
    assert (doc.type_text, doc.default) == (type_text, default)


def test_what_must_be_set_is_required():
    assert describe(SFTRun, "dataset").is_required
    assert describe(SFTRun, "dataset.name").is_required
    assert not describe(SFTRun, "adapter").is_required
    assert not describe(SFTRun, "eval_dataset").is_required


def test_sections_are_described_by_their_docstring():
    assert describe(SFTRun, "algorithm").help == "Supervised fine-tuning: cross-entropy of the answer's tokens."


def test_unknown_keys_get_suggestions():
    with pytest.raises(ConfigError, match=r"^optim\.lr: no such key\. Did you mean 'learning_rate'\?$"):
        describe(SFTRun, "optim.lr")


@pytest.mark.parametrize("command", sorted(SCHEMAS))
def test_every_key_of_every_run_has_help(command):
    schema = SCHEMAS[command]
    silent = [".".join(path) for path, _ in walk(Slot(schema)) if not describe(schema, ".".join(path)).help]
    assert silent == []


def test_describing_builds_no_validator_and_imports_nothing_heavy():
    code = """
import sys
from llmkit.config.docs import describe
from llmkit.config.runs import GRPORun
from llmkit.config.optim import OptimConfig
for key in ("optim.learning_rate", "optim.optimizer", "engine", "dataset", "dataset.path", "max_steps", "trackers"):
    describe(GRPORun, key)
assert not GRPORun.__pydantic_complete__ and not OptimConfig.__pydantic_complete__
print(sorted({"torch", "transformers", "datasets", "numpy", "rich", "yaml"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
