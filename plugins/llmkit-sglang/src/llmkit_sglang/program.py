"""How SGLang is installed, started and watched. The flags are those of SGLang 0.5.23."""

from pathlib import Path

from llmkit.engines.servers.kv_cache import GB, cache_bytes_per_token
from llmkit.engines.servers.program import (
    PYTHON_SERVER_HINTS,
    Additions,
    Flag,
    Hint,
    Program,
    Recipe,
    Situation,
    Stage,
    Switch,
    Variable,
    positive,
)

VERSION = "0.5.23"
CPU_SHIM = Path(__file__).parent / "cpu_shim"
"""Stands in for SGLang's kernels, of which there is no build for CPUs."""
CPU_PACKAGES = (
    "torch==2.13.0", "transformers==5.19.0", "compressed-tensors==0.18.0", "llguidance", "numba==0.65.1",
    "openai==2.8.0", "openai-harmony==0.0.4", "outlines==0.1.11", "soundfile==0.13.1", "xgrammar==0.2.7",
    "IPython", "aiohttp", "anthropic", "blobfile==3.0.0", "datasets", "distro", "easydict", "einops", "fastapi", "gguf",
    "interegular", "mistral_common", "msgpack", "msgspec", "ninja", "numpy", "orjson", "packaging",
    "partial_json_parser", "pillow", "prometheus-client", "psutil", "pybase64", "pydantic", "python-multipart", "pyzmq",
    "regex", "requests", "scipy", "sentencepiece", "setproctitle", "tiktoken", "torch_memory_saver", "uvicorn",
    "uvloop", "watchfiles", "xxhash", "zstandard",
)  # fmt: skip
"""What the server imports on a CPU; SGLang itself asks for kernels and a PyTorch that are for CUDA alone."""


def additions(situation: Situation) -> Additions:
    """What llmkit needs of every SGLang server, and what a CPU needs besides."""
    arguments = [
        # llmkit says how to draw in each request; the model's generation_config.json would change what it leaves out.
        "--sampling-defaults", "openai",
        "--log-level-http", "warning",
    ]  # fmt: skip
    variables = {"NO_COLOR": "1"}
    if Path(situation.options["model"]).is_dir():
        variables["HF_HUB_OFFLINE"] = "1"
    if situation.options["max_loras"]:
        arguments += ["--lora-target-modules", "all"]
    cache = situation.options.get("cache_memory_gb")
    per_token = cache_bytes_per_token(situation.architecture, situation.options["dtype"])
    if cache is not None and per_token is not None:
        # On a GPU each of the processes has its part of every token's keys and values.
        share = len(situation.slots) if situation.device == "cuda" else 1
        arguments += ["--max-total-tokens", str(max(1, int(cache * GB * share / per_token)))]
    more = Additions(tuple(arguments), variables)
    return more + on_a_cpu(situation) if situation.device == "cpu" else more


def on_a_cpu(situation: Situation) -> Additions:
    """PyTorch's own kernels, a scheduler that sleeps when there is nothing to do, and cores for each process."""
    arguments = [
        "--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch",
        "--disable-overlap-schedule", "--skip-server-warmup", "--sleep-on-idle",
    ]  # fmt: skip
    if situation.options["max_loras"]:
        arguments += ["--lora-backend", "torch_native"]
    variables = {
        "SGLANG_USE_CPU_ENGINE": "1",
        "SGLANG_CPU_OMP_THREADS_BIND": "|".join(",".join(map(str, cores)) for cores in situation.slots),
        "OMP_NUM_THREADS": str(max(map(len, situation.slots))),
    }
    return Additions(tuple(arguments), variables, (str(CPU_SHIM),))


def objections(situation: Situation) -> list[str]:
    """What SGLang would fail on after a while."""
    if situation.options["max_loras"] and "max_lora_rank" not in situation.options:
        return ["engine.max_loras needs engine.max_lora_rank with SGLang, which makes room for adapters when it starts"]
    return []


PROGRAM = Program(
    name="sglang",
    title="SGLang",
    command=("{python}", "-m", "sglang.launch_server"),
    options={
        "model": (Flag("--model-path"),),
        "revision": (Flag("--revision"),),
        "trust_remote_code": (Switch("--trust-remote-code"),),
        "tokenizer": (Flag("--tokenizer-path"),),
        "chat_template": (Flag("--chat-template"),),
        "served_name": (Flag("--served-model-name"),),
        "host": (Flag("--host"),),
        "port": (Flag("--port"),),
        "api_key": (Flag("--api-key"),),
        "dtype": (Flag("--dtype"),),
        "tp": (Flag("--tp-size"),),
        "pp": (Flag("--pp-size"),),
        "max_model_len": (Flag("--context-length"),),
        "memory_share": (Flag("--mem-fraction-static"),),
        "cache_memory_gb": (),  # see `additions`: SGLang counts tokens
        "max_running": (Flag("--max-running-requests"),),
        "max_batch_tokens": (Flag("--chunked-prefill-size"),),
        "max_loras": (Switch("--enable-lora"), Flag("--max-loras-per-batch", positive)),
        "max_lora_rank": (Flag("--max-lora-rank"),),
        "prefix_cache": (Switch("--disable-radix-cache", when=False),),
        "eager": (Switch("--disable-cuda-graph"),),
        "seed": (Flag("--random-seed"),),
        "logprobs": (Variable("SGLANG_RETURN_ORIGINAL_LOGPROB", lambda kind: int(kind == "raw")),),
    },
    module="sglang",
    package="sglang",
    cpu_path=(str(CPU_SHIM),),
    option_devices={"eager": "cuda"},
    additions=additions,
    objections=objections,
    aliases={
        "--model": "--model-path",
        "--tp": "--tp-size",
        "--tensor-parallel-size": "--tp-size",
        "--pp": "--pp-size",
        "--pipeline-parallel-size": "--pp-size",
    },
    ready_path="/ready",
    stages=(
        Stage(r"server_args=ServerArgs", "starting its processes"),
        Stage(r"Load weight begin", "loading weights"),
        Stage(r"Load weight end", "making room for the KV cache"),
        Stage(r"Capture cuda graph begin", "recording CUDA graphs"),
        Stage(r"Waiting for application startup|The server is fired up", "opening its port"),
    ),
    hints=(
        Hint(
            r"torchvision::nms does not exist|No module named '(sgl_kernel|torch|transformers)'",
            "The environment is not whole: `llmkit engines doctor sglang` says what to do",
        ),
        Hint(
            r"Not enough memory|max_total_num_tokens|No space left in the KV cache",
            "Raise engine.cache_memory_gb (on a GPU also engine.memory_share), or lower engine.max_model_len",
        ),
        *PYTHON_SERVER_HINTS,
    ),
    recipes={
        "cuda": Recipe((f"sglang=={VERSION}",)),
        "cpu": Recipe(CPU_PACKAGES, without_dependencies=(f"sglang=={VERSION}", "torchvision==0.28.0")),
    },
    seen_running=f"SGLang {VERSION} on a CPU, with dense models of the Qwen family",
)
