"""What launchers share: their settings, and an engine over servers that speak OpenAI's API."""

from llmkit.config.section import all_defaults
from llmkit.config.servers import ServerEngineConfig
from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.inference.remote.deadlines import Deadlines
from llmkit.engines.servers.program import Program
from llmkit.errors import ConfigError

TAKES_WEIGHTS = False
"""A policy in training cannot be sampled from here: nobody brings its weights."""


class LauncherConfig(ServerEngineConfig):
    """Servers of which llmkit knows no more than their command and OpenAI's API."""

    text: bool = True
    """Take answers as text from servers that give no token ids. Token ids are then what this model's tokenizer makes of
    the text, and there are no log-probabilities."""
    deadlines: Deadlines = all_defaults(Deadlines)
    """How long each kind of waiting for a server may take."""


def launch(program: Program, config: LauncherConfig, context: EngineContext) -> ServingEngine:
    """Start the servers, and find out what they give.

    Raises:
        ConfigError: a setting cannot be had, or there is a trainer, whose weights nothing would bring to them.
        EngineError: a server did not start or does not answer.
    """
    if context.policy is not None:
        raise ConfigError(
            f"engine.name={program.name}: llmkit brings no weights of a policy in training to {program.title}; choose "
            "native, vllm or sglang"
        )
    from llmkit.engines.inference.remote.engine import RemoteEngine
    from llmkit.engines.inference.remote.opening import open_dialect
    from llmkit.engines.servers.opening import open_fleet

    fleet = open_fleet(program, config, context)
    try:
        dialect = open_dialect(fleet, config.deadlines, context.tokenizer if config.text else None)
        return RemoteEngine(fleet, dialect, tokenizer=context.tokenizer, deadlines=config.deadlines)
    except BaseException:
        fleet.close()
        raise
