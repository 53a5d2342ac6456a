"""What is refused of an engine before anything is loaded."""

import pytest

from llmkit.engines.servers.fronts import check_takes_weights
from llmkit.errors import ConfigError, PluginError


@pytest.mark.parametrize("name", ["openai", "llama_cpp", "llama_cpp_python", "mindie", "tensorrt_llm"])
def test_an_engine_that_nobody_brings_weights_to_is_refused_with_those_that_take_them(name: str):
    with pytest.raises(ConfigError, match=f"engine.name={name}: nobody brings .* are echo, native") as caught:
        check_takes_weights(name)
    assert name not in str(caught.value).split("those that")[1].replace(",", "").split()


@pytest.mark.parametrize("name", ["native", "echo"])
def test_an_engine_that_takes_weights_is_let_through(name: str):
    check_takes_weights(name)


def test_an_engine_that_says_nothing_takes_weights_and_a_broken_one_is_no_choice(fake_package):
    front = "class Config: ...\n\ndef build(config, context): ..."
    fake_package("acme", {"engines": {"fast": "acme", "torn": "nowhere"}}, {"acme.py": front})
    check_takes_weights("fast")
    with pytest.raises(ConfigError, match=r"echo, fast, native") as caught:
        check_takes_weights("openai")
    assert "torn" not in str(caught.value)


def test_an_engine_that_is_not_there():
    with pytest.raises(PluginError, match="No engine named 'fats'"):
        check_takes_weights("fats")
