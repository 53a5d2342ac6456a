import asyncio
import json

import peft
import pytest
import torch
from safetensors.torch import load_file

from llmkit.adapters.wrapping import quiet, wrap
from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.weight_sync.adapter_delivery import NAME
from llmkit.engines.inference.weight_sync.opening import open_weight_sync
from llmkit.errors import EngineError, RequestError

from .servers import FakeDialect, FakeReceiver, FakeServer, policy_of, tiny_model


def story(tmp_path, **settings):
    model = wrap(tiny_model(), peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"]), "lora")
    policy, dialect = policy_of(model.eval()), FakeDialect()
    config = WeightSyncConfig(transport="adapter", probe=False, **({"directory": tmp_path} | settings))
    return policy, dialect, open_weight_sync(config, policy, dialect, FakeReceiver(), max_lora_rank=8)


def test_servers_load_what_peft_reads_in_the_place_of_the_one_before(tmp_path):
    links = [FakeServer(), FakeServer(index=1)]
    policy, dialect, sync = story(tmp_path)
    assert sync.adapter is None
    for version in (1, 2):
        for name, parameter in policy.model.named_parameters():
            if "lora_" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        asyncio.run(sync.update(links, version))
        assert sync.adapter == NAME
        assert [(name, replace) for name, _, replace in dialect.loaded] == [(NAME, True)] * 2
        path = dialect.loaded[0][1]
        with quiet():
            served = peft.PeftModel.from_pretrained(tiny_model(), path).eval()
        tokens = torch.arange(9)[None]
        with torch.no_grad():
            torch.testing.assert_close(served(tokens).logits, policy.model(tokens).logits)
        assert json.loads((path / "adapter_config.json").read_text())["r"] == 4
        dialect.loaded.clear()
    assert links[0].log.count("drop") == 2
    sync.close()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_started_again_gets_the_adapter_of_the_update(tmp_path):
    policy, dialect, sync = story(tmp_path)
    asyncio.run(sync.update([FakeServer()], 1))
    before = load_file(dialect.loaded[0][1] / "adapter_model.safetensors")
    for parameter in policy.model.parameters():
        parameter.data += 1
    asyncio.run(sync.restore(FakeServer()))
    after = load_file(dialect.loaded[1][1] / "adapter_model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_adapter_that_a_server_refuses_is_an_error_with_its_reason(tmp_path, monkeypatch):
    _, dialect, sync = story(tmp_path)

    async def refuse(link, name, path, *, replace):
        raise RequestError("its rank is above the limit")

    monkeypatch.setattr(dialect, "load_adapter", refuse)
    with pytest.raises(EngineError, match=r"server 0 .* refuses it: its rank is above the limit"):
        asyncio.run(sync.update([FakeServer()], 1))
    assert sync.adapter is None


def test_servers_of_other_machines_need_a_directory_that_both_see(tmp_path):
    *_, sync = story(tmp_path, directory=None)
    with pytest.raises(EngineError, match="is not on this machine"):
        asyncio.run(sync.update([FakeServer(url="http://10.0.0.7:8000")], 1))
    *_, sync = story(tmp_path)
    asyncio.run(sync.update([FakeServer(url="http://10.0.0.7:8000")], 1))
    sync.close()
