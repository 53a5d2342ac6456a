"""What `--worker-extension-cls` adds to every worker of a vLLM server: methods that `/collective_rpc` calls.

Each takes one message and answers with one, both JSON objects; the argument travels as text, since vLLM takes strings.
An answer of `{"error": ...}` stands for whatever went wrong: an exception that leaves a worker would end the server.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from llmkit_vllm_worker.channels import Channels
from llmkit_vllm_worker.session import WeightSession

logger = logging.getLogger(__name__)

Message = Mapping[str, Any]


class WeightUpdates:
    """Methods of a worker; `model_runner` and the like are the worker's own."""

    model_runner: Any
    vllm_config: Any
    device: Any
    rank: int

    _llmkit_session: WeightSession | None = None
    _llmkit_channels: Channels | None = None

    def llmkit_describe(self, message: str) -> dict[str, Any]:
        """What the sender has to know: type of the weights, device, and the worker's place."""

        def describe(_: Message) -> dict[str, Any]:
            dtype = str(self.vllm_config.model_config.dtype).removeprefix("torch.")
            return {"dtype": dtype, "device": self.device.type, "rank": self.rank}

        return self._llmkit_answer("describe", describe, message)

    def llmkit_connect(self, message: str) -> dict[str, Any]:
        """Join a process group with the sender."""
        return self._llmkit_answer("connect", self._llmkit_open_channels().connect, message)

    def llmkit_begin(self, message: str) -> dict[str, Any]:
        """Begin an update; one that has not ended is given up."""
        return self._llmkit_answer("begin", self._llmkit_begin, message)

    def llmkit_put(self, message: str) -> dict[str, Any]:
        """Take some tensors."""
        return self._llmkit_answer("put", self._llmkit_put, message)

    def llmkit_commit(self, message: str) -> dict[str, Any]:
        """End the update: from now on the model has the new weights."""
        return self._llmkit_answer("commit", self._llmkit_commit, message)

    def llmkit_abort(self, message: str) -> dict[str, Any]:
        """Give the update up."""
        return self._llmkit_answer("abort", self._llmkit_abort, message)

    def _llmkit_answer(self, name: str, work: Callable[[Message], dict[str, Any]], message: str) -> dict[str, Any]:
        from vllm.config import set_current_vllm_config  # pyright: ignore[reportMissingImports]

        try:
            with set_current_vllm_config(self.vllm_config):
                return work(json.loads(message))
        except Exception as error:
            logger.exception("llmkit: weight update: %s failed", name)
            return {"error": f"worker {self.rank}: {type(error).__name__}: {error}"}

    def _llmkit_open_channels(self) -> Channels:
        if self._llmkit_channels is None:
            self._llmkit_channels = Channels(self.device, self.rank)
        return self._llmkit_channels

    def _llmkit_begin(self, message: Message) -> dict[str, Any]:
        self._llmkit_abort(message)
        self._llmkit_session = WeightSession(self.model_runner, message["key"])
        return {}

    def _llmkit_put(self, message: Message) -> dict[str, Any]:
        session = self._llmkit_running(message)
        tensors = self._llmkit_open_channels().receive(message)
        return {"fingerprints": session.put(tensors, fingerprints=message["fingerprints"])}

    def _llmkit_commit(self, message: Message) -> dict[str, Any]:
        session = self._llmkit_running(message)
        self._llmkit_session = None
        return {"renewed": session.commit(message["names"])}

    def _llmkit_abort(self, message: Message) -> dict[str, Any]:
        session, self._llmkit_session = self._llmkit_session, None
        if session is not None:
            session.abort()
        return {}

    def _llmkit_running(self, message: Message) -> WeightSession:
        session = self._llmkit_session
        if session is None or session.key != message["key"]:
            raise RuntimeError("this update is not under way; another one has begun since, or it was given up")
        return session
