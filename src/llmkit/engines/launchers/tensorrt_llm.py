"""TensorRT-LLM (`trtllm-serve`) as servers that llmkit starts, on GPUs of NVIDIA."""

from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.launchers.launching import TAKES_WEIGHTS as TAKES_WEIGHTS
from llmkit.engines.launchers.launching import LauncherConfig, launch
from llmkit.engines.servers.program import Argument, Entry, Flag, Hint, Program, Switch

PROGRAM = Program(
    name="tensorrt_llm",
    title="TensorRT-LLM",
    command=("{bin}/trtllm-serve",),
    options={
        "model": (Argument(),),
        "revision": (Flag("--revision"),),
        "trust_remote_code": (Switch("--trust_remote_code"),),
        "tokenizer": (Flag("--tokenizer"),),
        "chat_template": (Flag("--chat_template"),),
        "host": (Flag("--host"),),
        "port": (Flag("--port"),),
        "tp": (Flag("--tp_size"),),
        "pp": (Flag("--pp_size"),),
        "max_model_len": (Flag("--max_seq_len"),),
        "max_running": (Flag("--max_batch_size"),),
        "max_batch_tokens": (Flag("--max_num_tokens"),),
        # It has no flags for these, and a file of its Python API's arguments: YAML, of which JSON is a part.
        "dtype": (Entry(("dtype",)),),
        "prefix_cache": (Entry(("kv_cache_config", "enable_block_reuse")),),
    },
    module="tensorrt_llm",
    package="tensorrt-llm",
    devices=("cuda",),
    aliases={
        "--tensor_parallel_size": "--tp_size",
        "--pipeline_parallel_size": "--pp_size",
        "--config": "--extra_llm_api_options",
    },
    config_name="llm-options.yaml",
    config_flag="--extra_llm_api_options",
    hints=(
        Hint(r"out of memory|OutOfMemory", "Lower engine.max_running or engine.max_batch_tokens, or raise engine.tp"),
        Hint(r"No such option", "It does not know all arguments of engine.extra_args (or behind `--`)"),
    ),
    how_to_install="Its wheels come from NVIDIA's package index, and its containers have it: see its documentation",
)


class Config(LauncherConfig):
    """What TensorRT-LLM can be told; what it has besides goes behind `--`, as `--kv_cache_free_gpu_memory_fraction`."""


def build(config: Config, context: EngineContext) -> ServingEngine:
    """Start the servers.

    Raises:
        ConfigError: a setting cannot be had; nothing was started.
        EngineError: a server did not start or does not answer.
    """
    return launch(PROGRAM, config, context)
