"""vLLM's command line: what llmkit writes, and what vLLM's own parser makes of it."""

import json
import subprocess
import sys
from typing import Any

import pytest
from llmkit_vllm import PROGRAM, Config

from llmkit import machine
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.servers.command import Command
from llmkit.engines.servers.environments import remembered
from llmkit.engines.servers.opening import plan_servers
from llmkit.errors import ConfigError

TINY = ModelConfig(path="builtin:tiny-untrained")
EVERYTHING = {
    "tp": 2, "max_model_len": 256, "cache_memory_gb": 1, "max_running": 4, "max_batch_tokens": 512, "max_loras": 2,
    "max_lora_rank": 16, "api_key": "sk-1", "prefix_cache": False, "eager": True, "seed": 5, "dtype": "bfloat16",
}  # fmt: skip
PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
words = json.loads(sys.argv[1])
found = vars(make_arg_parser(FlexibleArgumentParser()).parse_args(words))
names = json.loads(sys.argv[2])
print(json.dumps({name: found[name] for name in names}, default=str))
"""
"""Asks vLLM's parser; unknown arguments and values end it with an error."""


@pytest.fixture(autouse=True)
def _two_cores_and_no_gpu(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: [4, 6])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def command(tmp_path, *, training: bool = False, serving: bool = False, **settings) -> Command:
    config = Config.model_validate({"python": sys.executable} | settings)
    policy: Any = object() if training else None
    context = EngineContext(TINY, DeviceConfig.model_validate({}), policy, logprobs="raw" if serving else "processed")
    (written,) = plan_servers(PROGRAM, config, context, tmp_path).commands
    return written


def test_cores_and_the_cache_are_variables_on_a_cpu(tmp_path):
    variables = command(tmp_path, tp=2, cache_memory_gb=1.5).variables
    assert variables["VLLM_CPU_OMP_THREADS_BIND"] == "4|6"
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "2"  # GiB, in whole numbers
    assert command(tmp_path).variables["VLLM_CPU_OMP_THREADS_BIND"] == "4,6"


def test_clients_of_an_api_get_raw_log_probabilities_and_trainers_those_they_compare_with(tmp_path):
    def mode(**settings) -> str:
        words = command(tmp_path, **settings).arguments
        return words[words.index("--logprobs-mode") + 1]

    assert mode() == "processed_logprobs"
    assert mode(logprobs="raw") == "raw_logprobs"
    assert mode(serving=True) == "raw_logprobs"
    assert mode(serving=True, logprobs="processed") == "processed_logprobs"
    with pytest.raises(ConfigError, match=r"is written from engine\.logprobs; set that instead"):
        command(tmp_path, extra_args=("--logprobs-mode=raw_logprobs",))


def test_the_cache_is_a_flag_on_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    written = command(tmp_path, cache_memory_gb=1.5)
    assert " ".join(written.arguments).endswith("--kv-cache-memory-bytes 1500000000")
    assert "VLLM_CPU_OMP_THREADS_BIND" not in written.variables


def test_only_servers_that_take_weights_open_their_back_door(tmp_path):
    assert "VLLM_SERVER_DEV_MODE" not in command(tmp_path).variables
    written = command(tmp_path, training=True)
    assert written.variables["VLLM_SERVER_DEV_MODE"] == "1"
    assert written.variables["PYTHONPATH"].endswith("worker")
    assert "--worker-extension-cls" in written.arguments


def test_a_key_is_not_on_the_command_line_where_everybody_can_read_it(tmp_path):
    written = command(tmp_path, api_key="sk-1")
    assert written.variables["VLLM_API_KEY"] == "sk-1"
    assert "sk-1" not in " ".join(written.arguments)


def test_what_vllm_would_fail_on_later_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: list(range(8)))
    with pytest.raises(ConfigError, match=r"engine\.tp=8 does not divide the model's 4 key-value heads"):
        command(tmp_path, tp=8)
    with pytest.raises(ConfigError, match=r"engine\.max_lora_rank=12: vLLM takes 1, 8, 16, .*; 16 holds it too"):
        command(tmp_path, max_loras=1, max_lora_rank=12)
    for word in ("-tp", "--tensor_parallel_size=2"):
        with pytest.raises(ConfigError, match=r"is written from engine\.tp; set that instead"):
            command(tmp_path, extra_args=(word,))


def vllm_python() -> str:
    environment = remembered("vllm")
    if environment is None:
        pytest.skip("vLLM is not installed: `make test-engines` or `llmkit engines install vllm`")
    return environment.python


def parsed(words: list[str], names: list[str]) -> dict[str, object]:
    done = subprocess.run(
        [vllm_python(), "-c", PARSE, json.dumps(words), json.dumps(names)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().rpartition("\n")[2])


@pytest.mark.engines
def test_vllms_own_parser_takes_what_is_written(tmp_path):
    written = command(tmp_path, training=True, **EVERYTHING)
    words = list(written.arguments[written.arguments.index("serve") + 1 :])
    model = words[0]
    assert parsed(words, [
        "model_tag", "host", "served_model_name", "dtype", "tensor_parallel_size", "pipeline_parallel_size",
        "max_model_len", "max_num_seqs", "max_num_batched_tokens", "enable_lora", "max_loras", "max_lora_rank",
        "enable_prefix_caching", "enforce_eager", "seed", "generation_config", "logprobs_mode",
        "disable_uvicorn_access_log", "worker_extension_cls",
    ]) == {
        "model_tag": model, "host": "127.0.0.1", "served_model_name": ["tiny-untrained"], "dtype": "bfloat16",
        "tensor_parallel_size": 2, "pipeline_parallel_size": 1, "max_model_len": 256, "max_num_seqs": 4,
        "max_num_batched_tokens": 512, "enable_lora": True, "max_loras": 2, "max_lora_rank": 16,
        "enable_prefix_caching": False, "enforce_eager": True, "seed": 5, "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs", "disable_uvicorn_access_log": True,
        "worker_extension_cls": "llmkit_vllm_worker.extension.WeightUpdates",
    }  # fmt: skip


@pytest.mark.engines
def test_vllms_own_parser_knows_what_a_gpu_would_be_told(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    written = command(tmp_path, cache_memory_gb=1)
    words = list(written.arguments[written.arguments.index("serve") + 1 :])
    assert parsed(words, ["kv_cache_memory_bytes"]) == {"kv_cache_memory_bytes": 10**9}
    written = command(tmp_path, memory_share=0.5)
    words = list(written.arguments[written.arguments.index("serve") + 1 :])
    assert parsed(words, ["gpu_memory_utilization"]) == {"gpu_memory_utilization": 0.5}
