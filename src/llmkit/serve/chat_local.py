"""A model that is loaded in this process."""

import sys
from collections.abc import AsyncGenerator

from llmkit.config.serving import ServeRun
from llmkit.engines.inference.contract import GenerationRequest
from llmkit.errors import EngineError
from llmkit.serve.api_errors import ApiError
from llmkit.serve.assembly import open_service
from llmkit.serve.chat import Settings
from llmkit.serve.context import Context
from llmkit.serve.model_defaults import given
from llmkit.serve.service import Service
from llmkit.serve.turns import draw_answers, make_turn
from llmkit.types import Message, SamplingParams


class LocalModel:
    """Runs what `llmkit serve` would, without a server."""

    def __init__(self, run: ServeRun) -> None:
        self._run = run
        self._service: Service | None = None

    async def open(self) -> str:
        """Load the model; see `open_service`."""
        print(f"Loading {self._run.model.path} with the engine '{self._run.engine.name}' ...", file=sys.stderr)
        self._service = await open_service(self._run)
        return self._service.names[0]

    async def answer(self, messages: list[dict[str, str]], settings: Settings) -> AsyncGenerator[tuple[str, bool]]:
        """See `Said`.

        Raises:
            EngineError: the request cannot be served.
        """
        service = self._service
        assert service is not None, "`open` was called"
        try:
            turn = await make_turn(service, [Message(one["role"], one["content"]) for one in messages])  # type: ignore[arg-type]
            sampling = SamplingParams(
                max_new_tokens=service.new_tokens(len(turn.prompt_ids), settings.max_tokens),
                temperature=given(settings.temperature, service.defaults.temperature),
                top_k=service.defaults.top_k,
                top_p=service.defaults.top_p,
                min_p=service.defaults.min_p,
                repetition_penalty=service.defaults.repetition_penalty,
                seed=settings.seed,
                stop_token_ids=service.end_ids,
                logprob_kind="any",
            )
            # With several adapters the last one speaks: who names one here wants to hear it.
            adapter = next(reversed(service.engine.adapters), None)
            request = GenerationRequest(turn.prompt_ids, sampling, adapter=adapter)
            answers = draw_answers(Context(service, "chat", "openai"), request, turn.reading)
            try:
                async for answer in answers:
                    if answer.piece.reasoning:
                        yield answer.piece.reasoning, True
                    if answer.piece.content:
                        yield answer.piece.content, False
            finally:
                await answers.aclose()
        except ApiError as error:
            raise EngineError(str(error)) from error

    async def close(self) -> None:
        """Free the model."""
        if self._service is not None:
            await self._service.close()
