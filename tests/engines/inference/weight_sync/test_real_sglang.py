"""Weights in real SGLang servers: what they draw is scored with the policy's own model."""

import pytest

from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.weight_sync.opening import open_weight_sync
from llmkit.engines.inference.weight_sync.policy_weights import PolicyWeights
from llmkit.errors import EngineError

from .real_engines import LONG, NEAR, check_lora, check_updates, training_over

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One server with an output head that shares the embedding's weights, and room for an adapter."""
    with training_over("sglang", tmp_path_factory.mktemp("sglang"), max_loras=1, max_lora_rank=8) as training:
        yield training


def test_a_lora_travels_alone(served, monkeypatch):
    check_lora(served, monkeypatch)


def test_after_each_update_the_tokens_are_those_of_the_new_weights(served):
    check_updates(served, 3)


def test_the_prefix_cache_holds_nothing_of_the_old_weights(served):
    served.draw(LONG)
    assert served.num_cached_of(LONG[0]) > 0
    served.step()
    served.load_weights()
    assert served.num_cached_of(LONG[0]) == 0
    assert served.distance(LONG) < NEAR


@pytest.mark.parametrize("transport", ["disk", "gloo"])
def test_other_ways_bring_the_same_weights(served, transport, monkeypatch):
    engine = served.engine
    config = WeightSyncConfig(transport=transport, bucket_mb=1, probe_every=1, dtype="bfloat16")
    other = open_weight_sync(config, served.policy, engine._dialect, engine._sync._receiver, max_lora_rank=None)
    monkeypatch.setattr(engine, "_sync", other)
    check_updates(served)
    other.close()


def test_a_wrong_update_is_caught_by_the_probe_and_the_next_one_mends_it(served, monkeypatch):
    right = PolicyWeights.tensors

    def with_a_wrong_layer(self, dtype):
        for name, tensor in right(self, dtype):
            yield name, tensor.flip(0).contiguous() if name == "model.embed_tokens.weight" else tensor

    monkeypatch.setattr(served.engine._sync, "_is_verified", False)
    monkeypatch.setattr(PolicyWeights, "tensors", with_a_wrong_layer)
    with pytest.raises(EngineError, match=r"token \d+ at place \d+ of a probe has log-probability -?[\d.]+ there and"):
        served.load_weights()
    monkeypatch.undo()
    served.load_weights()
    assert served.distance() < NEAR


def test_two_processes_with_a_head_of_its_own(tmp_path):
    with training_over("sglang", tmp_path, tied=False, tp=2) as training:
        check_updates(training)
