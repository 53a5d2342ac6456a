"""Updates over files, to servers that fail in every phase."""

import asyncio
import logging
import re

import pytest
import torch

from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.weight_sync import deadlines, handover
from llmkit.engines.inference.weight_sync.contract import PhaseTimeoutError
from llmkit.engines.inference.weight_sync.file_delivery import FileDelivery
from llmkit.engines.inference.weight_sync.parity import ParityProbe
from llmkit.engines.inference.weight_sync.places import WeightsPlace
from llmkit.engines.inference.weight_sync.policy_weights import PolicyWeights
from llmkit.engines.inference.weight_sync.transaction import ServerWeightSync
from llmkit.errors import EngineError

from .servers import TERMS, FakeDialect, FakeReceiver, FakeServer, policy_of, tiny_model, train_a_step


class Story:
    """A policy, its servers and what brings it to them."""

    def __init__(self, tmp_path, num_servers=1, *, terms=TERMS, **settings):
        self.policy = policy_of(tiny_model())
        self.links = [FakeServer(index=index) for index in range(num_servers)]
        self.place = tmp_path / "place"
        self.receiver, self.dialect = FakeReceiver(), FakeDialect()
        config = WeightSyncConfig(probe_tokens=4, timeout_seconds=terms.seconds, **settings)
        delivery = FileDelivery(
            PolicyWeights(self.policy),
            self.receiver,
            WeightsPlace(self.place, in_memory=False),
            terms,
            must_be_local=True,
        )
        probe = ParityProbe(self.policy, self.dialect, config)
        self.sync = ServerWeightSync(delivery, self.receiver, self.dialect, probe, config)

    def update(self, version=1):
        asyncio.run(asyncio.wait_for(self.sync.update(self.links, version), 30))

    def verify(self, version=1):
        asyncio.run(asyncio.wait_for(self.sync.verify(self.links, version), 30))

    def restore(self, link):
        asyncio.run(asyncio.wait_for(self.sync.restore(link), 30))

    def differs(self, link):
        """Names of weights that a server has otherwise than the policy in the servers' type."""
        theirs = link.model.state_dict()
        return [
            name
            for name, tensor in self.policy.model.state_dict().items()
            if not torch.equal(theirs[name], tensor.to(self.receiver.dtype or tensor.dtype).float())
        ]


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch):
    monkeypatch.setattr(deadlines, "GRACE_SECONDS", 0.0)


def test_all_servers_have_the_policys_weights_and_no_older_cache(tmp_path):
    story = Story(tmp_path, num_servers=2)
    for version in (1, 2):
        train_a_step(story.policy)
        story.update(version)
        for link in story.links:
            assert not story.differs(link)
            assert (link.version, link.cached_of) == (version, version)


def test_weights_come_in_several_files_of_which_none_stays(tmp_path):
    story = Story(tmp_path)
    story.update()
    assert story.links[0].log.count("put") > 3
    assert len(list(story.place.glob("*/*.safetensors"))) == story.links[0].log.count("put")
    story.sync.close()
    story.sync.close()
    assert list(story.place.iterdir()) == []


@pytest.mark.parametrize("phase", ["begin", "put", "commit"])
def test_a_failure_is_retried_once_with_the_same_weights(tmp_path, phase, caplog):
    story = Story(tmp_path, num_servers=2)
    story.links[1].troubles = {phase: ["it broke"]}
    train_a_step(story.policy)
    with caplog.at_level(logging.WARNING):
        story.update()
    assert "server 1: it broke; trying once more" in caplog.text
    assert [story.differs(link) for link in story.links] == [[], []]
    assert story.links[1].log.count("abort") == 1
    assert story.links[0].log.count("begin") == 1


@pytest.mark.parametrize("phase", ["begin", "put", "commit"])
def test_a_second_failure_is_an_error_that_names_phase_and_server(tmp_path, phase):
    story = Story(tmp_path, num_servers=2)
    story.links[1].troubles = {phase: ["it broke", "it broke again"]}
    with pytest.raises(EngineError, match=f"{phase}: server 1: it broke again"):
        story.update()
    story.update(2)
    assert [link.version for link in story.links] == [2, 2]


@pytest.mark.parametrize(
    ("phase", "what"),
    [("begin", handover.BEGINNING), ("put", handover.LOADING), ("commit", handover.COMMITTING)],
)
def test_a_server_that_hangs_ends_in_an_error_with_phase_and_server_and_is_not_asked_again(tmp_path, phase, what):
    terms = handover.Terms(dtype=None, bucket_bytes=1 << 20, seconds=0.2, compares=True)
    story = Story(tmp_path, num_servers=2, terms=terms)
    story.links[1].troubles = {phase: ["hang"]}
    with pytest.raises(PhaseTimeoutError, match=re.escape(f"{what}: server 1 (http://127.0.0.1:1) took longer")):
        story.update()
    assert story.links[1].log.count(phase) == 1
    assert story.links[1].log[-1] == "abort"


def test_what_giving_up_meets_does_not_hide_the_failure(tmp_path):
    story = Story(tmp_path)
    story.links[0].troubles = {"put": ["it broke", "and again"], "abort": ["gone", "gone"]}
    with pytest.raises(EngineError, match="and again") as raised:
        story.update()
    assert any("gone" in note for note in raised.value.__notes__)


def test_a_server_that_read_something_else_is_told_by_the_tensors_name(tmp_path):
    story = Story(tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    story.links[0].troubles = {"garble": [name]}
    with pytest.raises(EngineError, match=re.escape(f"server 0 (http://127.0.0.1:1): worker 0 has read {name}")):
        story.update()
    assert "commit" not in story.links[0].log


def test_cached_prefixes_that_cannot_be_dropped_are_an_error(tmp_path):
    story = Story(tmp_path)
    story.links[0].troubles = {"drop": ["requests are running"]}
    with pytest.raises(EngineError, match="requests are running"):
        story.update()


def test_a_cancelled_update_is_given_up_on_the_servers(tmp_path):
    story = Story(tmp_path)
    story.links[0].troubles = {"put": ["hang"]}

    async def cancelled():
        task = asyncio.create_task(story.sync.update(story.links, 1))
        while "put" not in story.links[0].log:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancelled(), 20))
    assert story.links[0].log[-1] == "abort"


def test_a_server_that_is_started_again_gets_the_weights_of_the_update_and_not_those_of_now(tmp_path):
    story = Story(tmp_path)
    train_a_step(story.policy)
    story.update(3)
    then = {name: tensor.clone() for name, tensor in story.links[0].model.state_dict().items()}
    train_a_step(story.policy)
    fresh = FakeServer()
    story.restore(fresh)
    assert all(torch.equal(fresh.model.state_dict()[name], tensor) for name, tensor in then.items())
    assert (fresh.version, fresh.cached_of) == (3, 3)


def test_before_the_first_update_there_is_nothing_to_restore(tmp_path):
    story = Story(tmp_path)
    story.restore(story.links[0])
    assert story.links[0].log == []


def test_after_a_failed_update_there_is_nothing_to_restore_from(tmp_path):
    story = Story(tmp_path)
    story.update(1)
    story.links[0].troubles = {"put": ["no", "no"]}
    with pytest.raises(EngineError):
        story.update(2)
    with pytest.raises(EngineError, match="the last update of its weights failed"):
        story.restore(FakeServer())


def test_servers_of_other_machines_are_refused(tmp_path):
    story = Story(tmp_path)
    story.links[0].url = "http://10.0.0.7:8000"
    with pytest.raises(EngineError, match="is not on this machine and sees no files of it"):
        story.update()
    assert story.links[0].log == []


@pytest.mark.parametrize(("every", "compared"), [(0, [1]), (1, [1, 2, 3, 4]), (2, [1, 2, 4])])
def test_servers_are_compared_after_the_first_update_and_then_as_often_as_set(tmp_path, every, compared):
    story = Story(tmp_path, probe_every=every)
    found = []
    for version in (1, 2, 3, 4):
        train_a_step(story.policy)
        story.update(version)
        before = len(story.links[0].log)
        story.verify(version)
        found += [version] if "stream" in story.links[0].log[before:] else []
    assert found == compared


def test_after_a_failed_comparison_the_state_is_unknown_until_the_next_update(tmp_path):
    story = Story(tmp_path)
    train_a_step(story.policy)
    story.update(1)
    story.links[0].model = tiny_model()
    with pytest.raises(EngineError, match="does not draw with the weights of version 1"):
        story.verify(1)
    with pytest.raises(EngineError, match="the last update of its weights failed"):
        story.restore(story.links[0])
    story.update(2)
    before = len(story.links[0].log)
    story.verify(2)
    assert "stream" in story.links[0].log[before:]


def test_a_full_place_is_an_error_before_servers_hear_of_it(tmp_path, monkeypatch):
    story = Story(tmp_path)
    monkeypatch.setattr(WeightsPlace, "check_room", lambda self, size: (_ for _ in ()).throw(EngineError("no room")))
    with pytest.raises(EngineError, match="no room"):
        story.update()
    assert story.links[0].log == ["facts"]
