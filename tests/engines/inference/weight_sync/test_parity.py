import asyncio

import pytest
import torch

from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.weight_sync.parity import ParityProbe, probe_prompts
from llmkit.errors import EngineError
from llmkit.types import Completion

from .servers import FakeDialect, FakeServer, policy_of, tiny_model, train_a_step


def probe_of(policy, **settings):
    return ParityProbe(policy, FakeDialect(), WeightSyncConfig(probe_tokens=6, **settings))


def test_the_worst_token_and_the_share_that_agrees_by_hand(monkeypatch):
    policy = policy_of(tiny_model())
    probe = probe_of(policy, probe_tolerance=0.5)
    # Three places over a vocabulary of four. The likeliest tokens are 0, 1 and 2.
    ours = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.4, 0.5, 0.05, 0.05], [0.1, 0.1, 0.6, 0.2]]).log()
    monkeypatch.setattr(probe, "_scores", lambda prompt, ids: ours)
    said = torch.tensor([0.7, 0.4, 0.8]).log().tolist()
    found = probe._measure([1, 2], Completion([0, 0, 3], said, [1, 1, 1], "length"))
    # ln 0.5 - ln 0.4 = 0.22 is within the tolerance, ln 0.6 - ln 0.2 = 1.1 is not: two of three agree.
    assert found.agreement == pytest.approx(2 / 3)
    assert (found.place, found.token) == (2, 3)
    assert found.theirs == pytest.approx(torch.tensor(0.8).log().item())
    assert found.ours == pytest.approx(torch.tensor(0.2).log().item())


def test_a_number_that_is_none_is_the_worst_of_all(monkeypatch):
    probe = probe_of(policy_of(tiny_model()))
    monkeypatch.setattr(probe, "_scores", lambda prompt, ids: torch.full((2, 4), 0.25).log())
    found = probe._measure([1], Completion([0, 1], [float("nan"), -1.4], [1, 1], "length"))
    assert found.place == 0
    assert not found.difference <= 100


def test_a_server_with_the_policys_weights_passes():
    policy = policy_of(tiny_model())
    asyncio.run(probe_of(policy, probe_tolerance=1e-3, probe_agreement=1.0).compare([FakeServer()], 1, None))


@pytest.mark.parametrize(("context", "longest"), [(None, 46), (30, 30), (4, 4)])
def test_probes_fit_the_servers_context(context, longest):
    policy, link = policy_of(tiny_model()), FakeServer(context_length=context)
    asyncio.run(probe_of(policy).compare([link], 1, None))
    assert link.longest == longest


def test_a_server_with_other_weights_does_not():
    policy = policy_of(tiny_model())
    train_a_step(policy)
    with pytest.raises(
        EngineError, match=r"server 0 \(http://127.0.0.1:1\) does not draw with the weights of version 7"
    ):
        asyncio.run(probe_of(policy).compare([FakeServer()], 7, None))


def test_a_single_stale_matrix_is_found():
    policy, link = policy_of(tiny_model()), FakeServer()
    with torch.no_grad():
        policy.model.lm_head.weight += 0.3
        policy.model.lm_head.weight[:7] -= 1.0
    with pytest.raises(EngineError, match="has log-probability"):
        asyncio.run(probe_of(policy).compare([link], 1, None))


def test_the_policy_trains_on_as_before():
    policy = policy_of(tiny_model())
    policy.model.train()
    asyncio.run(probe_of(policy, probe_tolerance=5.0).compare([FakeServer()], 1, None))
    assert policy.model.training


def test_probe_prompts_use_the_whole_vocabulary():
    prompts = probe_prompts(policy_of(tiny_model()))
    assert [len(prompt) for prompt in prompts] == [5, 40]
    assert all(0 <= token < 64 for prompt in prompts for token in prompt)
    assert len({token for prompt in prompts for token in prompt}) > 15
