"""llama.cpp's own server (`llama-server`) over a GGUF file."""

from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.launchers.gguf_files import GGUFConfig, gguf_file
from llmkit.engines.launchers.launching import TAKES_WEIGHTS as TAKES_WEIGHTS
from llmkit.engines.launchers.launching import launch
from llmkit.engines.servers.program import Additions, Flag, Hint, Program, Situation, Stage, Switch, Variable

ALL_LAYERS = "999"


def additions(situation: Situation) -> Additions:
    """Its cores, or all layers on the GPUs that it is shown; and the context of all completions together."""
    length, most = situation.options.get("max_model_len"), situation.options.get("max_running", 1)
    context = ("--ctx-size", str(length * most)) if length else ()
    if situation.device == "cuda":
        return Additions(("--n-gpu-layers", ALL_LAYERS, "--split-mode", "layer", *context))
    return Additions(("--threads", str(sum(map(len, situation.slots))), "--n-gpu-layers", "0", *context))


def objections(situation: Situation) -> list[str]:
    """Its context is divided among the completions that it draws side by side."""
    if "max_running" in situation.options and "max_model_len" not in situation.options:
        return ["engine.max_running needs engine.max_model_len with llama.cpp, which sets memory aside for all of them"]
    return []


PROGRAM = Program(
    name="llama_cpp",
    title="llama.cpp",
    command=("{program}",),
    executable="llama-server",
    options={
        "model": (Flag("--model"),),
        "chat_template": (Flag("--chat-template-file"),),
        "served_name": (Flag("--alias"),),
        "host": (Flag("--host"),),
        "port": (Flag("--port"),),
        "api_key": (Variable("LLAMA_API_KEY"),),
        "tp": (),  # on GPUs: how many it is shown; on a CPU its threads are one process
        "max_model_len": (),
        "max_running": (Flag("--parallel"),),
        "max_batch_tokens": (Flag("--batch-size"),),
        "prefix_cache": (Switch("--cache-prompt"), Switch("--no-cache-prompt", when=False)),
        "seed": (Flag("--seed"),),
    },
    option_devices={"tp": "cuda"},
    additions=additions,
    model_file=gguf_file,
    objections=objections,
    aliases={
        "-m": "--model", "-a": "--alias", "-c": "--ctx-size", "-np": "--parallel", "-b": "--batch-size", "-s": "--seed",
        "-t": "--threads", "-ngl": "--n-gpu-layers", "--gpu-layers": "--n-gpu-layers", "-sm": "--split-mode",
        "--api-key": "LLAMA_API_KEY",
    },
    stages=(
        Stage(r"load_model: loading model|llama_model_loader: loaded", "loading weights"),
        Stage(r"llama_context: constructing|llama_kv_cache", "making room for the KV cache"),
        Stage(r"warming up the model", "warming up"),
    ),
    hints=(
        Hint(r"failed to allocate|out of memory", "Lower engine.max_model_len or engine.max_running"),
        Hint(r"invalid argument|unknown argument", "It does not know all arguments of engine.extra_args"),
    ),
    how_to_install="Install llama.cpp, so that its llama-server is on the PATH",
)  # fmt: skip


class Config(GGUFConfig):
    """What llama.cpp's server can be told."""


def build(config: Config, context: EngineContext) -> ServingEngine:
    """Start the servers.

    Raises:
        ConfigError: a setting cannot be had; nothing was started.
        EngineError: a server did not start or does not answer.
    """
    return launch(PROGRAM, config, context)
