import peft
import pytest
import torch

from llmkit.adapters.wrapping import wrap
from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.weight_sync import opening
from llmkit.engines.inference.weight_sync.adapter_delivery import AdapterDelivery
from llmkit.engines.inference.weight_sync.direct_delivery import DirectDelivery
from llmkit.engines.inference.weight_sync.file_delivery import FileDelivery
from llmkit.engines.inference.weight_sync.opening import open_weight_sync
from llmkit.errors import ConfigError

from .servers import FakeDialect, FakeReceiver, policy_of, tiny_model


def lora(**options):
    config = peft.LoraConfig(**{"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **options})
    return policy_of(wrap(tiny_model(), config, "lora"))


def opened(policy, *, max_lora_rank=None, **settings):
    sync = open_weight_sync(
        WeightSyncConfig(**settings), policy, FakeDialect(), FakeReceiver(), max_lora_rank=max_lora_rank
    )
    return sync._delivery


def test_a_lora_travels_alone_where_servers_take_it():
    assert isinstance(opened(lora(), max_lora_rank=4), AdapterDelivery)


@pytest.mark.parametrize("max_lora_rank", [None, 2])
def test_a_lora_is_merged_where_servers_take_none_or_smaller_ones(max_lora_rank):
    assert isinstance(opened(lora(), max_lora_rank=max_lora_rank), FileDelivery)


@pytest.mark.parametrize(
    "options",
    [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"init_lora_weights": "pissa"}, {"bias": "all"},
     {"alpha_pattern": {"q_proj": 3}}, {"trainable_token_indices": [1, 2]}],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_what_is_more_than_a_lora_is_merged(options):
    policy = lora(**options)
    assert isinstance(opened(policy, max_lora_rank=16), FileDelivery)
    with pytest.raises(ConfigError, match=r"transport=adapter: it .*; use shared_memory or disk"):
        opened(policy, max_lora_rank=16, transport="adapter")


def test_a_model_without_an_adapter_has_none_to_send():
    with pytest.raises(ConfigError, match="the policy has no adapter"):
        opened(policy_of(tiny_model()), max_lora_rank=16, transport="adapter")


def test_a_rank_above_the_servers_is_told_with_both_numbers():
    with pytest.raises(ConfigError, match=r"its rank 4 is above the servers' engine\.max_lora_rank=2"):
        opened(lora(), max_lora_rank=2, transport="adapter")


def test_files_go_to_the_disk_where_memory_has_no_room(monkeypatch):
    policy = policy_of(tiny_model())
    assert opened(policy)._place._in_memory
    monkeypatch.setattr(opening, "room", lambda where, in_memory: 10)
    assert not opened(policy)._place._in_memory


def test_a_directory_is_taken_by_its_word(tmp_path):
    delivery = opened(policy_of(tiny_model()), directory=tmp_path)
    assert not delivery._must_be_local
    assert delivery._place.renew().parent == tmp_path
    delivery.close()


@pytest.mark.parametrize("transport", ["nccl", "cuda_ipc"])
def test_ways_of_gpus_are_refused_without_one(transport, monkeypatch):
    monkeypatch.setattr(FakeReceiver, "transports", ("nccl", "cuda_ipc"))
    with pytest.raises(ConfigError, match=f"transport={transport} sends from the memory of a GPU.* lies on cpu"):
        opened(policy_of(tiny_model()), transport=transport)


def test_what_servers_do_not_know_is_refused_in_their_words():
    with pytest.raises(ConfigError, match="transport=nccl: fake servers know no nccl"):
        opened(policy_of(tiny_model()), transport="nccl")


def test_gloo_sends_from_the_memory_of_the_host():
    delivery = opened(policy_of(tiny_model()), transport="gloo")
    assert isinstance(delivery, DirectDelivery)
    assert delivery._device == torch.device("cpu")
