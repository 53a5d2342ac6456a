"""From settings to a service: tokenizer, engine, adapters."""

import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmkit import plugins
from llmkit.config.serving import ServeRun
from llmkit.data.opening import open_codec
from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.inference.wrapped import serving_engine
from llmkit.errors import ConfigError, ModelError, RequestError
from llmkit.models.loading import NO_LIMIT, context_length
from llmkit.serve.model_defaults import ModelDefaults, read_defaults
from llmkit.serve.service import Service

logger = logging.getLogger("llmkit.serve")


async def open_service(run: ServeRun) -> Service:
    """Open the tokenizer, then the engine, then the adapters.

    Raises:
        ModelError: the model, its tokenizer or its generation_config.json cannot be used.
        PluginError: the engine is not installed.
        ConfigError: an adapter does not fit.
    """
    codec = open_codec(run.model)
    defaults = read_defaults(run.model, codec.num_ids) if run.model_defaults else ModelDefaults()
    if run.device.threads:
        import torch

        torch.set_num_threads(run.device.threads)
    context = EngineContext(run.model, run.device, tokenizer=codec.tokenizer, logprobs="raw")
    section: Any = run.engine
    with _ctrl_c_at_once():
        built = plugins.load("engines", section.name).build(section, context)
    engine = serving_engine(built, codec.tokenizer, None if isinstance(built, ServingEngine) else _context(run))
    if not isinstance(built, ServingEngine):
        defaults = _understood(defaults, section.name)
    service = Service(engine, codec, run, defaults)
    try:
        await load_adapters(service, run.adapters)
    except BaseException:
        await service.close()
        raise
    return service


@contextmanager
def _ctrl_c_at_once() -> Iterator[None]:
    """Let Ctrl-C end what blocks the event loop: starting a server can take minutes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


async def load_adapters(service: Service, adapters: Mapping[str, str]) -> None:
    """Load the adapters of the settings.

    Raises:
        ConfigError: a name is taken, a directory is not there, or an adapter does not fit the model.
    """
    for name, directory in adapters.items():
        path = Path(directory).expanduser()
        if name in service.names:
            raise ConfigError(f"adapters.{name}: the model itself has this name; choose another")
        if not path.is_dir():
            raise ConfigError(f"adapters.{name}={directory}: no such directory")
        try:
            await service.engine.load_adapter(name, path)
        except (RequestError, ModelError) as error:
            raise ConfigError(f"adapters.{name}={directory}: {error}") from error


def _understood(defaults: ModelDefaults, engine: str) -> ModelDefaults:
    """Without those that a plain engine does not know: it would refuse every request."""
    plain = replace(defaults, min_p=0.0, repetition_penalty=1.0)
    if plain != defaults:
        logger.warning(
            "engine.name=%s knows no min_p and no repetition_penalty; those of the model's generation_config.json "
            "(model_defaults) have no effect",
            engine,
        )
    return plain


def _context(run: ServeRun) -> int | None:
    length = context_length(run.model)
    return None if length >= NO_LIMIT else length
