"""llama.cpp behind llama-cpp-python's server over a GGUF file, in an environment of its own."""

from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.launchers.gguf_files import GGUFConfig, gguf_file
from llmkit.engines.launchers.launching import TAKES_WEIGHTS as TAKES_WEIGHTS
from llmkit.engines.launchers.launching import launch
from llmkit.engines.servers.program import Additions, Flag, Hint, Program, Recipe, Situation, Stage

RECIPE = Recipe(("llama-cpp-python[server]==0.3.36",))


def additions(situation: Situation) -> Additions:
    """Log-probabilities for those who ask; its cores, or all layers on the GPUs that it is shown."""
    common = ("--logits_all", "True")
    if situation.device == "cuda":
        return Additions((*common, "--n_gpu_layers", "-1"))
    threads = str(sum(map(len, situation.slots)))
    return Additions((*common, "--n_threads", threads, "--n_threads_batch", threads))


PROGRAM = Program(
    name="llama_cpp_python",
    title="llama-cpp-python",
    command=("{python}", "-m", "llama_cpp.server"),
    options={
        "model": (Flag("--model"),),
        "served_name": (Flag("--model_alias"),),
        "host": (Flag("--host"),),
        "port": (Flag("--port"),),
        "api_key": (Flag("--api_key"),),
        "tp": (),  # on GPUs: how many it is shown; on a CPU its threads are one process
        "max_model_len": (Flag("--n_ctx"),),
        "max_batch_tokens": (Flag("--n_batch"),),
        "prefix_cache": (Flag("--cache"),),
        "seed": (Flag("--seed"),),
    },
    option_devices={"tp": "cuda"},
    module="llama_cpp.server.app",
    package="llama_cpp_python",
    additions=additions,
    model_file=gguf_file,
    ready_path="/v1/models",
    stages=(
        Stage(r"llama_model_loader: loaded", "loading weights"),
        Stage(r"llama_context: constructing|llama_kv_cache", "making room for the KV cache"),
        Stage(r"Waiting for application startup", "opening its port"),
    ),
    hints=(
        Hint(r"Failed to load model from file|Failed to create llama_context", "The file may be broken or too large"),
        Hint(r"unrecognized arguments", "It does not know all arguments of engine.extra_args (or behind `--`)"),
    ),
    recipes={"cpu": RECIPE, "cuda": RECIPE},
    seen_running="llama-cpp-python 0.3.36 on a CPU, by hand",
)


class Config(GGUFConfig):
    """What llama-cpp-python's server can be told; it draws one completion at a time."""


def build(config: Config, context: EngineContext) -> ServingEngine:
    """Start the servers.

    Raises:
        ConfigError: a setting cannot be had; nothing was started.
        EngineError: a server did not start or does not answer.
    """
    return launch(PROGRAM, config, context)
