"""`llmkit serve --dry-run`: everything that can be known without loading weights."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmkit import plugins
from llmkit.cache import cache_directory
from llmkit.config.serving import ServeRun
from llmkit.data.chat.parsing.tools import find_parser
from llmkit.data.opening import open_codec
from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.servers.opening import Door, plan_servers
from llmkit.engines.servers.program import Program
from llmkit.errors import ConfigError, ModelError
from llmkit.models.loading import NO_LIMIT, checkpoint_path, context_length
from llmkit.serve.direct import server_settings
from llmkit.serve.keys import open_keys
from llmkit.serve.model_defaults import ModelDefaults, read_defaults
from llmkit.serve.server import bind
from llmkit.serve.service import default_name
from llmkit.serve.template_variables import template_variables
from llmkit.types import Message


def look(run: ServeRun) -> dict[str, Any]:
    """What the server would be.

    Raises:
        ConfigError: the port is taken, or a key or an adapter is not to be had.
        ModelError: the model or its tokenizer cannot be used.
        PluginError: the engine is not installed.
    """
    keys = open_keys(run.auth)
    with bind(run.server.host, run.server.port):
        pass
    plugin = plugins.load("engines", run.engine.name)
    checkpoint_path(run.model)
    codec = open_codec(run.model)
    length = context_length(run.model)
    defaults = read_defaults(run.model, codec.num_ids) if run.model_defaults else ModelDefaults()
    for name, path in run.adapters.items():
        check_adapter(name, path)
    templates = codec.template.sources
    try:
        variables = template_variables(run.chat_template_kwargs, None)
        prompt = codec.decode(codec.prompt_ids([Message("user", "Hello")], variables=variables))
    except ModelError as error:
        prompt = f"none: {error}"
    return {
        "model": run.model.path,
        "engine": run.engine.name,
        "names": [*(run.server.served_names or (default_name(run.model.path),)), *run.adapters],
        "address": f"{run.server.host}:{run.server.port}",
        "keys": "none needed" if keys.is_open else "needed",
        "context": "no limit" if length >= NO_LIMIT else length,
        "tool_parser": find_parser(run.tool_parser, templates) or "none",
        "reasoning": run.reasoning_parser == "think" or any("</think>" in template for template in templates),
        "sampling": ", ".join(f"{name}={value}" for name, value in asdict(defaults).items()),
        "sample_prompt": repr(prompt),
    } | _servers(run, getattr(plugin, "PROGRAM", None))


def _servers(run: ServeRun, program: Program | None) -> dict[str, Any]:
    """What would be started for an engine that has servers of its own, as one would type it."""
    config: Any = run.engine
    if program is None or config.urls:
        return {}
    directory = Path(config.log_dir) if config.log_dir else cache_directory() / "servers" / program.name
    context = EngineContext(run.model, run.device, logprobs="raw")
    door = Door(run.server.host, run.server.port) if run.server.direct else None
    config = server_settings(run) if run.server.direct else config
    plan = plan_servers(program, config, context, directory, door=door)
    return {"commands": [str(command) for command in plan.commands]}


def check_adapter(name: str, path: str) -> None:
    """Refuse a directory that can be no adapter.

    Raises:
        ConfigError: it has no adapter_config.json.
    """
    if not (Path(path).expanduser() / "adapter_config.json").is_file():
        raise ConfigError(f"adapters.{name}={path}: no adapter_config.json there; give the directory of an adapter")
