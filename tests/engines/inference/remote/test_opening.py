"""What servers are is found out."""

import pytest
from tests.engines.inference.remote.conftest import QUICK, ScriptedFleet

from llmkit import plugins
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.engines.inference.contract import EngineContext, GenerationRequest
from llmkit.engines.inference.remote.openai_dialect import OpenAIDialect
from llmkit.engines.inference.remote.opening import open_dialect, served_logprobs
from llmkit.errors import ConfigError, RequestError
from llmkit.testing.tiny import tiny_codec
from llmkit.types import SamplingParams


def request(sampling: SamplingParams) -> GenerationRequest:
    return GenerationRequest([5], sampling)


@pytest.mark.parametrize(("logprobs", "refused"), [("raw", "scaled"), ("processed", "raw")])
def test_which_logprobs_a_server_gives_is_measured(servers, logprobs, refused):
    processes = servers(1)
    processes[0].set(logprobs=logprobs)
    dialect = open_dialect(ScriptedFleet(processes), QUICK)
    assert isinstance(dialect, OpenAIDialect)
    with pytest.raises(RequestError, match=f"gives the {logprobs} log-probabilities"):
        dialect.check(request(SamplingParams(temperature=0.5, logprob_kind=refused)))


@pytest.mark.parametrize("logprobs", ["raw", "processed"])
def test_which_logprobs_all_servers_give_is_told(servers, logprobs):
    processes = servers(2)
    for process in processes:
        process.set(logprobs=logprobs)
    assert served_logprobs(ScriptedFleet(processes), QUICK) == logprobs
    processes[0].set(logprobs="processed" if logprobs == "raw" else "raw")
    with pytest.raises(ConfigError, match="processed, raw; all must give the same"):
        served_logprobs(ScriptedFleet(processes), QUICK)


def test_a_server_of_text_alone_is_taken_only_when_that_is_asked_for(servers):
    processes = servers(1)
    processes[0].set(gives_token_ids=False)
    with pytest.raises(ConfigError, match=r"set engine\.text=true"):
        open_dialect(ScriptedFleet(processes), QUICK)
    dialect = open_dialect(ScriptedFleet(processes), QUICK, tiny_codec().tokenizer)
    dialect.check(request(SamplingParams(logprob_kind="any")))


def test_servers_of_several_kinds_are_refused(servers):
    processes = servers(2)
    processes[0].set(gives_token_ids=False)
    with pytest.raises(ConfigError, match="several kinds: scripted, raw log-probabilities, scripted, text alone"):
        open_dialect(ScriptedFleet(processes), QUICK)


def test_a_policy_in_training_is_refused_before_a_server_is_asked():
    front = plugins.load("engines", "openai")
    config = front.Config.model_validate({"urls": ["http://127.0.0.1:1"]})
    context = EngineContext(ModelConfig(path="x"), DeviceConfig(), policy=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nothing brings the weights of a policy in training"):
        front.build(config, context)
