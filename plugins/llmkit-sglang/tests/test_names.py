"""SGLang calls its model by the path of the weights that it has read last."""

import asyncio
from typing import Any

from llmkit_sglang.dialect import SGLangDialect

from llmkit.engines.inference.remote.contract import Server
from llmkit.engines.inference.remote.models import ModelCard, ModelList


class RenamedLink:
    server = Server(0, "http://127.0.0.1:30000", "model")

    async def call(self, path: str, body: Any = None, **_: Any) -> Any:
        cards = [ModelCard("/dev/shm/weights", max_model_len=64), ModelCard("a", parent="/dev/shm/weights")]
        return ModelList(cards) if path == "/v1/models" else None


def test_a_server_with_new_weights_is_well_under_its_new_name():
    link: Any = RenamedLink()
    facts = asyncio.run(SGLangDialect().facts(link))
    assert (facts.context_length, facts.adapters) == (64, ("a",))
