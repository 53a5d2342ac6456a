"""Servers that run already, behind addresses: llmkit, vLLM, SGLang, or any that OpenAI's clients can use."""

from typing import Annotated

from pydantic import Field

from llmkit.config.section import Nonsemantic, Secret, Section, all_defaults
from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.inference.remote.deadlines import Deadlines

TAKES_WEIGHTS = False
"""A policy in training cannot be sampled from here: nobody brings its weights."""


class Config(Section):
    """Where the servers are; what they are is found out."""

    urls: Annotated[tuple[str, ...], Nonsemantic] = Field(min_length=1)
    """Their addresses, as `http://host:port`: several of one kind, with one model, share the requests."""
    served_name: str | None = None
    """Name of the model in requests; unset takes the only one that a server has."""
    api_key: Annotated[Secret | None, Nonsemantic] = None
    """Key that the servers ask for, best from the environment: `api_key=${env:MY_KEY}`."""
    text: bool = False
    """Take answers as text from servers that give no token ids. Token ids are then what this model's tokenizer makes of
    the text, and there are no log-probabilities."""
    deadlines: Deadlines = all_defaults(Deadlines)
    """How long each kind of waiting for a server may take."""


def build(config: Config, context: EngineContext) -> ServingEngine:
    """Find out what the servers are.

    Raises:
        ConfigError: an address is none, or the servers do not give what the settings ask for.
        EngineError: no server answers.
        PluginError: a package is missing.
    """
    from importlib.util import find_spec

    from llmkit.errors import ConfigError, PluginError

    if missing := [name for name in ("aiohttp", "msgspec") if find_spec(name) is None]:
        raise PluginError(f"engine.name=openai needs {', '.join(missing)}: pip install 'llmkit[serve]'")
    from llmkit.engines.inference.remote.engine import RemoteEngine
    from llmkit.engines.inference.remote.opening import open_dialect
    from llmkit.engines.servers.fleet import given_fleet

    if context.policy is not None:
        raise ConfigError(
            "engine.name=openai: nothing brings the weights of a policy in training to servers that somebody else has "
            "started; choose an engine that starts its own, such as vllm"
        )
    key = None if config.api_key is None else config.api_key.get_secret_value()
    fleet = given_fleet(config.urls, config.served_name, key)
    text_tokenizer = context.tokenizer if config.text else None
    dialect = open_dialect(fleet, config.deadlines, text_tokenizer)
    return RemoteEngine(fleet, dialect, tokenizer=context.tokenizer, deadlines=config.deadlines)
