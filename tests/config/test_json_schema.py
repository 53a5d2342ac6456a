from llmkit.config.json_schema import json_schema
from llmkit.config.runs import GRPORun

DOCUMENT, LEFT_OUT = json_schema(GRPORun, "train/grpo")


def test_keys_have_types_limits_and_help():
    seed = DOCUMENT["properties"]["seed"]
    assert (seed["type"], seed["minimum"], seed["default"]) == ("integer", 0, 0)
    assert seed["description"] == "Fixes initial weights, data order and sampling."
    rate = DOCUMENT["$defs"]["OptimConfig"]["properties"]["learning_rate"]
    assert (rate["minimum"], rate["description"]) == (0, "Peak learning rate.")


def test_plugin_sections_take_a_name_or_the_options_of_an_installed_plugin():
    dataset = DOCUMENT["properties"]["dataset"]["anyOf"]
    assert {"arithmetic", "files", "gsm8k"} <= set(dataset[0]["enum"])
    files = DOCUMENT["$defs"]["files_datasets"]
    assert files["properties"]["name"]["const"] == "files"
    assert "path" in files["properties"]
    assert files["additionalProperties"] is False
    assert {"$ref": "#/$defs/files_datasets"} in dataset
    assert {"type": "null"} in DOCUMENT["properties"]["eval_dataset"]["anyOf"]
    assert DOCUMENT["properties"]["engine"]["default"] == "native"
    assert DOCUMENT["properties"]["trackers"]["type"] == "array"


def test_one_file_need_not_say_everything_and_may_extend():
    sections = [DOCUMENT, *DOCUMENT["$defs"].values()]
    assert not [section for section in sections if "required" in section]
    assert "extends" in DOCUMENT["properties"]
    assert DOCUMENT["additionalProperties"] is False
    assert LEFT_OUT == []


def test_a_plugin_that_cannot_be_loaded_is_left_out_and_told(monkeypatch):
    from llmkit import plugins
    from llmkit.errors import PluginError

    real = plugins.load

    def load(kind: str, name: str):
        if name == "files":
            raise PluginError("The dataset 'files' cannot be imported")
        return real(kind, name)

    monkeypatch.setattr(plugins, "load", load)
    document, left_out = json_schema(GRPORun, "train/grpo")
    assert "files_datasets" not in document["$defs"]
    assert set(left_out) == {"The dataset 'files' cannot be imported"}
