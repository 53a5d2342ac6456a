"""Weights in real vLLM servers: what they draw is scored with the policy's own model."""

import re

import pytest

from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.weight_sync.opening import open_weight_sync
from llmkit.engines.inference.weight_sync.policy_weights import PolicyWeights
from llmkit.errors import EngineError

from .real_engines import LONG, NEAR, Training, check_lora, check_updates, kill_server, training_over

pytestmark = pytest.mark.engines


def check_prefix_cache(training: Training) -> None:
    """A prompt that the cache had is computed anew after an update."""
    training.draw(LONG)
    start = training.num_cached_tokens()
    training.draw(LONG)
    assert training.num_cached_tokens() > start
    training.step()
    training.load_weights()
    before = training.num_cached_tokens()
    assert training.distance(LONG) < NEAR
    assert training.num_cached_tokens() == before


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One server with an output head that shares the embedding's weights, and room for an adapter."""
    settings = {"eager": True, "max_loras": 1, "max_lora_rank": 8}
    with training_over("vllm", tmp_path_factory.mktemp("vllm"), **settings) as training:
        yield training


def test_a_lora_travels_alone_and_other_ways_come_after_it(served, monkeypatch):
    check_lora(served, monkeypatch)


@pytest.mark.parametrize("transport", ["disk", "gloo"])
def test_other_ways_bring_the_same_weights(served, transport, monkeypatch):
    engine = served.engine
    config = WeightSyncConfig(transport=transport, bucket_mb=1, probe_every=1)
    other = open_weight_sync(config, served.policy, engine._dialect, engine._sync._receiver, max_lora_rank=None)
    monkeypatch.setattr(engine, "_sync", other)
    check_updates(served)
    other.close()


def test_a_wrong_update_is_caught_by_the_probe_and_the_next_one_mends_it(served, monkeypatch):
    right = PolicyWeights.tensors

    def with_a_wrong_head(self, dtype):
        for name, tensor in right(self, dtype):
            yield name, tensor.flip(0).contiguous() if name == "model.embed_tokens.weight" else tensor

    monkeypatch.setattr(served.engine._sync, "_is_verified", False)
    monkeypatch.setattr(PolicyWeights, "tensors", with_a_wrong_head)
    with pytest.raises(EngineError, match=r"token \d+ at place \d+ of a probe has log-probability -?[\d.]+ there and"):
        served.load_weights()
    with pytest.raises(EngineError, match="unknown"):
        served.draw()
    monkeypatch.undo()
    served.load_weights()
    assert served.distance() < NEAR


def test_an_update_that_lacks_a_tensor_is_refused_by_the_server(served, monkeypatch):
    right = PolicyWeights.tensors
    name = "model.layers.2.mlp.down_proj.weight"

    def without_one(self, dtype):
        return ((one, tensor) for one, tensor in right(self, dtype) if one != name)

    monkeypatch.setattr(PolicyWeights, "tensors", without_one)
    with pytest.raises(EngineError, match=re.escape(f"weights got nothing: {name}")):
        served.load_weights()
    monkeypatch.undo()
    served.load_weights()
    assert served.distance() < NEAR


@pytest.mark.slow
def test_a_server_that_was_killed_comes_back_with_the_weights_of_the_update(served):
    served.step()
    served.load_weights()
    fleet = served.engine.fleet
    kill_server(fleet.servers[0].url)
    assert served.distance() < NEAR
    assert fleet.num_starts(0) == 2


@pytest.mark.slow
def test_compiled_code_draws_tokens_that_are_those_of_the_new_weights(tmp_path):
    with training_over("vllm", tmp_path) as training:
        check_updates(training)
        check_prefix_cache(training)


@pytest.mark.slow
def test_two_processes_with_a_head_of_its_own(tmp_path):
    with training_over("vllm", tmp_path, tied=False, tp=2, eager=True) as training:
        check_updates(training)
        check_prefix_cache(training)
