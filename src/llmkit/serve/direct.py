"""`llmkit serve --direct`: start the engine's own server at the run's port, and look after it."""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llmkit import plugins
from llmkit.config.section import Section
from llmkit.config.serving import ServeRun
from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.inference.remote.contract import Fleet
from llmkit.engines.servers.opening import Door, open_fleet
from llmkit.engines.servers.program import Program
from llmkit.errors import ConfigError, EngineError
from llmkit.serve.logs import set_up_logs
from llmkit.serve.server import Listening, bind

logger = logging.getLogger("llmkit.serve")

POLL_SECONDS = 0.5
USED = frozenset({"host", "port", "served_names", "direct", "allow_without_keys", "log_format"})
"""Settings of `server` that the engine's own server is told of."""


def serve(run: ServeRun, tell: Callable[[Listening], None]) -> None:
    """Run the engine's server until SIGTERM or SIGINT.

    Args:
        run: the settings.
        tell: called when the server takes requests.
    Raises:
        ConfigError: the engine has no server of its own, the port is taken, or a setting cannot be had.
        EngineError: the server did not start, or crashed too often.
    """
    set_up_logs(run.server.log_format)
    program, config = program_of(run), server_settings(run)
    if idle := without_effect(run):
        logger.warning("server.direct leaves requests to %s: %s has no effect", program.title, ", ".join(idle))
    with TemporaryDirectory(prefix="llmkit-serve-") as directory, _sigterm_like_sigint():
        door = Door(run.server.host, free_port(run), chat_template(run, Path(directory)))
        fleet = open_fleet(program, config, EngineContext(run.model, run.device, logprobs="raw"), door=door)
        try:
            (server,) = fleet.servers
            tell(Listening(server.url, (server.model,), run.engine.name, server.api_key is not None, (server.url,)))
            _wait(fleet)
        except KeyboardInterrupt:
            logger.info("stopping: %s has %g seconds to end", program.title, config.stop_seconds)
        finally:
            fleet.close()


def _wait(fleet: Fleet) -> None:
    """Wait until somebody interrupts, or the server is gone for good."""
    while (failure := fleet.failure(0)) is None:
        time.sleep(POLL_SECONDS)
    raise EngineError(failure)


def program_of(run: ServeRun) -> Program:
    """The server program of the run's engine.

    Raises:
        ConfigError: it runs in llmkit's own process.
    """
    program = getattr(plugins.load("engines", run.engine.name), "PROGRAM", None)
    if program is None:
        raise ConfigError(f"server.direct: the engine '{run.engine.name}' has no server of its own; leave it out")
    return program


def server_settings(run: ServeRun) -> Any:
    """The engine's settings, with what the run says of its server.

    Raises:
        ConfigError: the engine's server cannot have one of them.
    """
    config: Any = run.engine
    if config.urls or config.dp > 1:
        what = f"engine.urls={list(config.urls)}" if config.urls else f"engine.dp={config.dp}"
        raise ConfigError(f"server.direct hands one port through, and {what} needs llmkit's own; leave one of them out")
    if run.auth.keys_file is not None:
        raise ConfigError("auth.keys_file holds hashes that llmkit alone can check; with server.direct set auth.keys")
    keys = [*run.auth.keys, *([config.api_key] if config.api_key else [])]
    if len(keys) > 1:
        raise ConfigError(f"server.direct: the engine's server takes one API key, and there are {len(keys)}")
    if len(run.server.served_names) > 1:
        raise ConfigError("server.served_names: with server.direct the engine's server has one name for the model")
    if run.adapters:
        raise ConfigError("adapters: with server.direct, name them with the engine's own flags behind --")
    changes: dict[str, Any] = {"api_key": keys[0]} if keys else {}
    if run.server.served_names:
        changes["served_name"] = run.server.served_names[0]
    return config.model_copy(update=changes)


def without_effect(run: ServeRun) -> list[str]:
    """Settings that are llmkit's own front's, and were set all the same."""
    found = [f"server.{key}" for key in changed(run.server) if key not in USED]
    found += [f"limits.{key}" for key in changed(run.limits)]
    own = ("tool_parser", "reasoning_parser", "chat_template_kwargs", "model_defaults")
    return [*found, *(key for key in changed(run) if key in own)]


def changed(section: Section) -> list[str]:
    """Keys of a section that are not at their defaults."""
    fields = type(section).model_fields
    plain = {key: fields[key].get_default(call_default_factory=True) for key in fields}
    return [key for key, value in plain.items() if getattr(section, key) != value]


def free_port(run: ServeRun) -> int:
    """The run's port, which nobody has; a free one for 0.

    Raises:
        ConfigError: another program has it.
    """
    with bind(run.server.host, run.server.port) as holder:
        return holder.getsockname()[1]


def chat_template(run: ServeRun, directory: Path) -> Path | None:
    """The run's own chat template as a file; None leaves it to the tokenizer."""
    if run.model.chat_template is None:
        return None
    from llmkit.data.opening import open_codec

    path = directory / "chat_template.jinja"
    path.write_text(open_codec(run.model).template.sources[0], encoding="utf-8")
    return path


@contextmanager
def _sigterm_like_sigint() -> Iterator[None]:
    """SIGTERM interrupts what is being done, as Ctrl-C does."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
