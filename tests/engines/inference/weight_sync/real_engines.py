"""A small model in training, and real servers that draw with it."""

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import peft
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from llmkit import plugins
from llmkit.adapters.wrapping import wrap
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.contract import Demand, EngineContext, GenerationRequest
from llmkit.engines.inference.weight_sync.opening import open_weight_sync
from llmkit.engines.servers.environments import find_program
from llmkit.errors import ConfigError, PluginError
from llmkit.models.policy import Policy
from llmkit.types import Completion, SamplingParams

VOCABULARY = 1024
PROMPTS = ([5, 6, 7, 8], list(range(100, 140)), [900, 17, 48, 33, 71, 12], list(range(300, 420)))
WAITS = {"deadlines": {"recovery_seconds": 380.0}}
"""A server that was killed starts again within this."""
LONG = (list(range(2, 514)),)
NEAR = 0.25
"""Largest difference of a log-probability, nats, that bfloat16 explains."""
SAMPLING = SamplingParams(max_new_tokens=16)
"""At temperature 1, where all kinds of log-probabilities are the same."""


def front_of(name: str) -> Any:
    """The engine's plugin; skips where its environment is not."""
    try:
        front = plugins.load("engines", name)
        find_program(front.PROGRAM, None)
    except (ConfigError, PluginError) as error:
        pytest.skip(str(error))
    return front


def save_model(directory: Path, *, tied: bool) -> None:
    """A checkpoint of random weights, with a tokenizer for servers that want one."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        head_dim=64, intermediate_size=512, tie_word_embeddings=tied, max_position_embeddings=2048,
        initializer_range=0.06, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    inner = Tokenizer(models.WordLevel({f"t{number}": number for number in range(VOCABULARY)}, unk_token="t3"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="t0", eos_token="t1", pad_token="t2")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    tokenizer.save_pretrained(directory)


def kill_server(url: str) -> None:
    """SIGKILL for the server that was started to listen there, and for its guard."""
    port = str(urlsplit(url).port).encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if b"--port" in words and words[words.index(b"--port") + 1] == port:
                os.kill(int(entry.parent.name), signal.SIGKILL)


class Training:
    """The policy, the engine over servers, and the event loop that it belongs to."""

    def __init__(self, policy: Policy, engine: Any, runner: asyncio.Runner, directory: Path) -> None:
        self.policy = policy
        self.engine = engine
        self.version = 0
        self.directory = directory
        self._runner = runner

    def run(self, work: Coroutine[Any, Any, Any], seconds: float = 400.0) -> Any:
        """The result of asynchronous work."""
        return self._runner.run(asyncio.wait_for(work, seconds))

    def step(self, size: float = 0.03) -> None:
        """Move the weights that train, by so much that other tokens come."""
        with torch.no_grad():
            for parameter in self.policy.model.parameters():
                if parameter.requires_grad:
                    parameter += size * torch.randn_like(parameter)

    def load_weights(self) -> None:
        """Bring the present weights to the servers."""
        self.version += 1
        self.run(self.engine.load_weights(self.version))

    def draw(self, prompts: Sequence[Sequence[int]] = PROMPTS) -> list[Completion]:
        """A completion of each prompt."""

        async def all_of() -> list[Completion]:
            return await asyncio.gather(*(self.engine.generate(prompt, SAMPLING) for prompt in prompts))

        return self.run(all_of())

    @torch.no_grad()
    def distance(self, prompts: Sequence[Sequence[int]] = PROMPTS) -> float:
        """Largest difference of a drawn token's log-probability from what the policy's model says of it, nats. The
        model computes in float32."""
        worst = 0.0
        for prompt, completion in zip(prompts, self.draw(prompts), strict=True):
            assert completion.versions == [self.version] * SAMPLING.max_new_tokens
            ids = torch.tensor(completion.token_ids)
            logits = self.policy.model(torch.tensor([[*prompt, *completion.token_ids]])).logits
            scores = logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            ours = scores.gather(1, ids[:, None])[:, 0]
            worst = max(worst, float((ours - torch.tensor(completion.logprobs)).abs().max()))
        return worst

    def num_cached_tokens(self) -> int:
        """Prompt tokens that the first server has taken from its prefix cache, by its own count."""
        return self.run(self.engine._dialect.stats(self.engine._members.all[0].link)).num_cached_tokens

    def num_cached_of(self, prompt: Sequence[int]) -> int | None:
        """Tokens of this prompt that come from the prefix cache now, where the server tells."""

        async def first() -> int | None:
            async with aclosing(self.engine.stream(GenerationRequest(prompt, SAMPLING))) as deltas:
                return next(iter([delta.num_cached_tokens async for delta in deltas]))

        return self.run(first())


def check_updates(training: Training, count: int = 2, size: float = 0.03) -> None:
    """Servers draw with the weights of before until an update, and with the new ones after it."""
    for _ in range(count):
        training.step(size)
        assert training.distance() > NEAR
        training.load_weights()
        assert training.distance() < NEAR


def check_lora(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    """A LoRA beside the weights that the servers were started with; they must not have got others yet."""
    engine = training.engine
    base = Qwen3ForCausalLM.from_pretrained(training.directory, dtype=torch.float32)
    lora = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights="gaussian")
    policy = Policy(wrap(base, lora, "lora").eval(), torch.device("cpu"), torch.float32)
    sync = open_weight_sync(
        WeightSyncConfig(probe_every=1), policy, engine._dialect, engine._sync._receiver, max_lora_rank=8
    )
    monkeypatch.setattr(engine, "_sync", sync)
    monkeypatch.setattr(training, "policy", policy)
    check_updates(training, size=0.1)
    assert sync.adapter is not None
    training.draw(LONG)
    check_updates(training, 1, size=0.1)
    assert training.distance(LONG) < NEAR
    sync.close()


@contextmanager
def training_over(name: str, directory: Path, *, tied: bool = True, **settings: Any) -> Iterator[Training]:
    """Servers of an engine over a fresh model; they are gone afterwards."""
    front = front_of(name)
    model = directory / "model"
    save_model(model, tied=tied)
    whole: Any = Qwen3ForCausalLM.from_pretrained(model, dtype=torch.float32)
    policy = Policy(whole.eval(), torch.device("cpu"), torch.float32)
    context = EngineContext(ModelConfig(path=str(model)), DeviceConfig(), policy, demand=Demand(16, 1024))
    config = front.Config(
        **{"dtype": "bfloat16", "cache_memory_gb": 0.5, "log_dir": str(directory / "logs"), **WAITS, **settings}
    )
    with asyncio.Runner() as runner:
        engine = front.build(config, context)
        try:
            yield Training(policy, engine, runner, model)
        finally:
            runner.run(engine.close())
