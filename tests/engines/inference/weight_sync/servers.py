"""Servers for tests of weight sync: they run in this process, read what they are sent, and fail when told to."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from llmkit.engines.inference.contract import Delta, GenerationRequest, TokenScores
from llmkit.engines.inference.remote.contract import Server, ServerFacts
from llmkit.engines.inference.weight_sync.contract import Parcel, TakingFacts, Update
from llmkit.engines.inference.weight_sync.fingerprints import fingerprint
from llmkit.engines.inference.weight_sync.handover import Terms
from llmkit.errors import EngineError
from llmkit.models.policy import Policy

TERMS = Terms(dtype=None, bucket_bytes=4096, seconds=20.0, compares=True)


def tiny_model(*, tied: bool = False) -> Any:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=16,
        intermediate_size=48, tie_word_embeddings=tied, initializer_range=0.3,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


def policy_of(model: Any) -> Policy:
    return Policy(model, torch.device("cpu"), torch.float32)


def train_a_step(policy: Policy) -> None:
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)


@dataclass
class FakeServer:
    """A server with a model of its own.

    Attributes:
        troubles: what to do instead of a phase, by its name, each once.
        log: phases that it went through.
    """

    url: str = "http://127.0.0.1:1"
    index: int = 0
    troubles: dict[str, list[Any]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    arrived: dict[str, Tensor] = field(default_factory=dict)
    model: Any = field(default_factory=tiny_model)
    version: int = 0
    cached_of: int = 0
    context_length: int | None = None
    longest: int = 0

    @property
    def server(self) -> Server:
        return Server(self.index, self.url, "m")

    async def phase(self, name: str) -> None:
        self.log.append(name)
        trouble = self.troubles[name].pop(0) if self.troubles.get(name) else None
        if trouble == "hang":
            await asyncio.sleep(1000)
        elif trouble is not None:
            raise EngineError(f"{name}: server {self.index}: {trouble}")

    async def call(self, path: str, body: Any = None, **_: Any) -> Any:
        raise AssertionError("these servers are spoken to by fakes")

    def events(self, path: str, body: Any, **_: Any) -> Any:
        raise AssertionError("these servers are spoken to by fakes")


class FakeReceiver:
    """Implements `Receiver` for fake servers."""

    transports = ("shared_memory", "disk", "gloo", "adapter")

    def __init__(self) -> None:
        self.dtype: torch.dtype | None = torch.bfloat16

    def refusal(self, transport: str) -> str:
        return f"fake servers know no {transport}"

    async def facts(self, link: Any, seconds: float) -> TakingFacts:
        await link.phase("facts")
        return TakingFacts(self.dtype, 1, "cpu")

    async def connect(self, link: Any, update: Update, group: Mapping[str, Any]) -> None:
        await link.phase("connect")

    async def begin(self, link: Any, update: Update) -> None:
        await link.phase("begin")
        link.arrived = {}

    async def put(self, link: Any, update: Update, parcel: Parcel) -> Sequence[Mapping[str, str]]:
        await link.phase("put")
        tensors = load_file(Path(parcel.message["path"]))
        for name in set(link.troubles.get("garble", ())) & tensors.keys():
            tensors[name] = tensors[name].flip(0).contiguous()
        link.arrived |= tensors
        return [{name: fingerprint(tensor) for name, tensor in tensors.items()}]

    async def commit(self, link: Any, update: Update) -> None:
        await link.phase("commit")
        assert list(link.arrived)
        assert sorted(link.arrived) == sorted(update.names)
        link.model.load_state_dict(link.arrived, strict=False)

    async def stamp(self, link: Any, version: int, seconds: float) -> None:
        await link.phase("stamp")
        link.version = version

    async def abort(self, link: Any, update: Update) -> None:
        await link.phase("abort")


class FakeDialect:
    """What of a `Dialect` weight sync uses."""

    name = "fake"

    def __init__(self) -> None:
        self.loaded: list[tuple[str, Path, bool]] = []

    async def facts(self, link: Any) -> ServerFacts:
        return ServerFacts(link.context_length)

    async def drop_caches(self, link: Any) -> None:
        await link.phase("drop")
        link.cached_of = link.version

    async def load_adapter(self, link: Any, name: str, path: Path, *, replace: bool) -> None:
        await link.phase("load_adapter")
        self.loaded.append((name, path, replace))

    async def stream(self, link: Any, request: GenerationRequest, version: int, **_: Any) -> AsyncGenerator[Delta]:
        await link.phase("stream")
        ids = list(request.prompt_ids)
        for _ in range(request.sampling.max_new_tokens):
            with torch.no_grad():
                scores = link.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            token = int(scores.argmax())
            ids.append(token)
            link.longest = max(link.longest, len(ids))
            yield Delta(0, [token], [TokenScores(float(scores[token]))], [version])
        yield Delta(0, stop_reason="length")
