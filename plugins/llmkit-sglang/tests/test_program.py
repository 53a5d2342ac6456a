"""SGLang's command line: what llmkit writes, and what SGLang's own parser makes of it."""

import json
import subprocess
import sys

import pytest
from llmkit_sglang import PROGRAM, Config

from llmkit import machine
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.servers.command import Command
from llmkit.engines.servers.environments import remembered
from llmkit.engines.servers.opening import plan_servers
from llmkit.errors import ConfigError

TINY = ModelConfig(path="builtin:tiny-untrained")  # 3 layers, 4 key-value heads of 32
EVERYTHING = {
    "tp": 2, "max_model_len": 256, "cache_memory_gb": 0.003, "max_running": 4, "max_batch_tokens": 512, "max_loras": 2,
    "max_lora_rank": 16, "api_key": "sk-1", "prefix_cache": False, "seed": 5, "dtype": "bfloat16",
}  # fmt: skip
PARSE = """
import argparse, json, sys
from sglang.srt.server_args import ServerArgs
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
found = vars(parser.parse_args(json.loads(sys.argv[1])))
print(json.dumps({name: found[name] for name in json.loads(sys.argv[2])}, default=str))
"""
"""Asks SGLang's parser; unknown arguments and values end it with an error."""


@pytest.fixture(autouse=True)
def _two_cores_and_no_gpu(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: [4, 6])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def command(tmp_path, **settings) -> Command:
    config = Config.model_validate({"python": sys.executable} | settings)
    (written,) = plan_servers(PROGRAM, config, EngineContext(TINY, DeviceConfig.model_validate({})), tmp_path).commands
    return written


def test_a_cpu_has_the_stand_in_for_kernels_and_cores_of_its_own(tmp_path):
    written = command(tmp_path, tp=2)
    assert written.variables["SGLANG_CPU_OMP_THREADS_BIND"] == "4|6"
    assert written.variables["OMP_NUM_THREADS"] == "1"
    assert written.variables["PYTHONPATH"].endswith("cpu_shim")
    assert {"--sleep-on-idle", "--attention-backend"} <= set(written.arguments)


def test_log_probabilities_from_before_temperature_are_a_variable(tmp_path):
    assert command(tmp_path).variables["SGLANG_RETURN_ORIGINAL_LOGPROB"] == "0"
    assert command(tmp_path, logprobs="raw").variables["SGLANG_RETURN_ORIGINAL_LOGPROB"] == "1"


def test_a_gpu_has_sglangs_own_kernels(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    written = command(tmp_path)
    assert "PYTHONPATH" not in written.variables
    assert "--device" not in written.arguments


def test_a_cache_in_gigabytes_becomes_tokens(tmp_path):
    # 2 x 3 layers x 4 heads x 32 values x 2 bytes = 1536 bytes a token
    words = command(tmp_path, cache_memory_gb=0.003, dtype="bfloat16").arguments
    assert words[words.index("--max-total-tokens") + 1] == str(3_000_000 // 1536)


def test_what_sglang_would_fail_on_later_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"engine\.max_loras needs engine\.max_lora_rank with SGLang"):
        command(tmp_path, max_loras=1)
    for word in ("--tp", "--tensor-parallel-size=2"):
        with pytest.raises(ConfigError, match=r"is written from engine\.tp; set that instead"):
            command(tmp_path, extra_args=(word,))


@pytest.mark.engines
def test_sglangs_own_parser_takes_what_is_written(tmp_path):
    environment = remembered("sglang")
    if environment is None:
        pytest.skip("SGLang is not installed: `make test-engines` or `llmkit engines install sglang`")
    written = command(tmp_path, **EVERYTHING)
    words = list(written.arguments[3:])
    expected = {
        "model_path": words[1], "served_model_name": "tiny-untrained", "host": "127.0.0.1", "api_key": "sk-1",
        "dtype": "bfloat16", "tp_size": 2, "pp_size": 1, "context_length": 256, "max_running_requests": 4,
        "chunked_prefill_size": 512, "enable_lora": True, "max_loras_per_batch": 2, "max_lora_rank": 16,
        "disable_radix_cache": True, "random_seed": 5, "sampling_defaults": "openai", "device": "cpu",
        "attention_backend": "torch_native", "sampling_backend": "pytorch", "lora_backend": "torch_native",
        "lora_target_modules": ["all"], "max_total_tokens": 1953, "sleep_on_idle": True,
    }  # fmt: skip
    done = subprocess.run(
        [environment.python, "-c", PARSE, json.dumps(words), json.dumps(list(expected))],
        capture_output=True, text=True, timeout=300, env=written.environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.strip().rpartition("\n")[2]) == expected
