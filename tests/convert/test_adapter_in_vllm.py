"""A converted adapter in the real vLLM server and in PEFT: the same greedy tokens as the adapter that it came from."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from llmkit import cli, plugins
from llmkit.adapters.wrapping import quiet
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.inference.remote.contract import Server
from llmkit.engines.servers.environments import remembered
from llmkit.engines.servers.opening import open_fleet
from llmkit.errors import PluginError
from llmkit.testing.tiny import tiny_model

pytestmark = pytest.mark.engines

PROMPTS = [[5, 9, 200, 31], list(range(40, 60)), [7]]
NEW_TOKENS = 16
RANK = 16
SECONDS = 300.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a shape that vLLM's kernels for processors take."""
    directory = tmp_path_factory.mktemp("model")
    config = Qwen3Config(
        vocab_size=259,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=256,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Qwen3ForCausalLM(config)
        for parameter in made.parameters():
            parameter.data *= 3  # tokens that stand out, so that rounding does not choose between them
    made.save_pretrained(directory)
    AutoTokenizer.from_pretrained(tiny_model()).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A LoHa, and the LoRA that the command makes of it."""
    directory = tmp_path_factory.mktemp("adapters")
    config = peft.LoHaConfig(r=4, alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    with quiet():
        wrapped = peft.get_peft_model(Qwen3ForCausalLM.from_pretrained(model), config)
        generator = torch.Generator().manual_seed(1)
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        wrapped.peft_config["default"].base_model_name_or_path = str(model)
        wrapped.save_pretrained(directory / "loha")
    line = ["convert", "adapter", directory / "loha", "--rank", RANK, "--output", directory / "lora"]
    assert cli.run([str(part) for part in line]) == 0
    return directory / "loha", directory / "lora"


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """vLLM with room for an adapter."""
    try:
        plugin: Any = plugins.load("engines", "vllm")
    except PluginError as error:
        pytest.skip(str(error))
    if remembered("vllm") is None:
        pytest.skip("vLLM is not installed: llmkit engines install vllm")
    config = plugin.Config(
        dtype="float32", eager=True, max_loras=1, max_lora_rank=RANK, log_dir=str(tmp_path_factory.mktemp("logs"))
    )
    context = EngineContext(ModelConfig(path=str(model)), DeviceConfig.model_validate({"device": "cpu"}))
    fleet = open_fleet(plugin.PROGRAM, config, context)
    yield fleet.servers[0]
    fleet.close()


def greedy_of(model: Path, adapter: Path) -> list[list[int]]:
    with quiet(), torch.no_grad():
        wrapped = peft.PeftModel.from_pretrained(Qwen3ForCausalLM.from_pretrained(model), adapter).eval()
        found = []
        for prompt in PROMPTS:
            tokens = list(prompt)
            for _ in range(NEW_TOKENS):
                tokens.append(int(wrapped(torch.tensor([tokens])).logits[0, -1].argmax()))
            found.append(tokens[len(prompt) :])
    return found


def ask(server: Server, path: str, body: dict[str, Any]) -> str:
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return answer.read().decode()


def served_greedy(server: Server, name: str) -> list[list[int]]:
    body = {"model": name, "prompt": PROMPTS, "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
    answer = json.loads(ask(server, "/v1/completions", {**body, "return_token_ids": True}))
    return [choice["token_ids"] for choice in sorted(answer["choices"], key=lambda choice: choice["index"])]


@pytest.mark.slow
def test_vllm_peft_and_the_source_draw_the_same_tokens(model: Path, adapters: tuple[Path, Path], server: Server):
    loha, lora = adapters
    expected = greedy_of(model, loha)
    assert greedy_of(model, lora) == expected
    ask(server, "/v1/load_lora_adapter", {"lora_name": "converted", "lora_path": str(lora)})
    assert served_greedy(server, "converted") == expected
    assert served_greedy(server, server.model) != expected, "the adapter does something"
