"""What launchers write, against the documentation of the programs: flags and files that they are known to take."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llmkit import machine, plugins
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.launchers.gguf_files import gguf_file
from llmkit.engines.launchers.llama_cpp import Config
from llmkit.engines.servers.opening import Plan, plan_servers
from llmkit.errors import ConfigError

TINY = ModelConfig(path="builtin:tiny-untrained")
LAUNCHERS = ("llama_cpp", "llama_cpp_python", "mindie", "tensorrt_llm")


@pytest.fixture(autouse=True)
def _two_of_everything(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "4,5")
    monkeypatch.setattr(machine, "usable_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr("shutil.which", lambda name: f"/opt/bin/{name}")
    monkeypatch.setenv("LLMKIT_DATA", str(tmp_path / "data"))


@pytest.fixture
def python(tmp_path) -> str:
    path = tmp_path / "env" / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.touch(mode=0o700)
    return str(path)


def plan(name: str, tmp_path: Path, *, device: str = "auto", **settings) -> Plan:
    plugin = plugins.load("engines", name)
    context = EngineContext(TINY, DeviceConfig.model_validate({"device": device}))
    config = plugin.Config.model_validate(settings)
    return plan_servers(plugin.PROGRAM, config, context, tmp_path)


def arguments(planned: Plan) -> str:
    (command,) = planned.commands
    return " ".join(command.arguments)


def test_tensorrt_llm_has_flags_and_a_file_of_its_python_arguments(tmp_path, python):
    planned = plan(
        "tensorrt_llm", tmp_path, python=python, tp=2, max_model_len=512, max_running=8, max_batch_tokens=1024,
        dtype="bfloat16", prefix_cache=False,
    )  # fmt: skip
    (command,) = planned.commands
    port = command.url.rpartition(":")[2]
    model = command.arguments[1]
    assert arguments(planned) == (
        f"{Path(python).parent}/trtllm-serve {model} --host 127.0.0.1 --port {port} --tp_size 2 --pp_size 1 "
        "--max_seq_len 512 --max_batch_size 8 --max_num_tokens 1024 "
        f"--extra_llm_api_options {tmp_path}/0-llm-options.yaml"
    )
    (text,) = command.files.values()
    assert json.loads(text) == {"dtype": "bfloat16", "kv_cache_config": {"enable_block_reuse": False}}
    assert command.variables["CUDA_VISIBLE_DEVICES"] == "0,1"
    with pytest.raises(ConfigError, match="TensorRT-LLM runs on cuda; leave device"):
        plan("tensorrt_llm", tmp_path, python=python, device="cpu")
    with pytest.raises(ConfigError, match=r"engine\.memory_share=0.5: TensorRT-LLM has no such option"):
        plan("tensorrt_llm", tmp_path, python=python, memory_share=0.5)
    with pytest.raises(ConfigError, match="--config is one that llmkit sets itself"):
        plan("tensorrt_llm", tmp_path, python=python, extra_args=("--config", "x"))


def test_mindie_gets_its_config_json(tmp_path):
    planned = plan("mindie", tmp_path, tp=2, max_model_len=512, max_running=8, served_name="poet")
    (command,) = planned.commands
    assert command.arguments == ("/opt/bin/mindieservice_daemon",)
    assert command.variables == {
        "MIES_CONFIG_JSON_PATH": f"{tmp_path}/0-config.json", "ASCEND_RT_VISIBLE_DEVICES": "4,5"
    }  # fmt: skip
    (text,) = command.files.values()
    document = json.loads(text)
    server, backend = document["ServerConfig"], document["BackendConfig"]
    assert document["Version"] == "1.0.0"
    assert (server["ipAddress"], server["port"]) == ("127.0.0.1", int(command.url.rpartition(":")[2]))
    assert server["httpsEnabled"] is False
    assert not {"managementIpAddress", "managementPort"} & set(server)  # so that health is asked for at the port above
    assert backend["npuDeviceIds"] == [[0, 1]]
    (model,) = backend["ModelDeployConfig"]["ModelConfig"]
    assert (model["modelName"], model["worldSize"], model["backendType"]) == ("poet", 2, "atb")
    assert (Path(model["modelWeightPath"]) / "config.json").is_file()
    assert backend["ModelDeployConfig"]["maxSeqLen"] == 512
    assert backend["ModelDeployConfig"]["maxInputTokenLen"] == 511
    schedule = backend["ScheduleConfig"]
    assert (schedule["maxBatchSize"], schedule["maxIterTimes"], schedule["maxPrefillTokens"]) == (8, 512, 512)
    with pytest.raises(ConfigError, match=r"engine\.pp=2: MindIE has no such option"):
        plan("mindie", tmp_path, pp=2)


def test_llama_server_divides_its_context_among_completions(tmp_path):
    file = tmp_path / "model.gguf"
    file.touch()
    settings = {"max_model_len": 512, "max_running": 4, "prefix_cache": False, "seed": 3, "api_key": "sk-1"}
    planned = plan("llama_cpp", tmp_path, device="cpu", gguf=str(file), **settings)
    (command,) = planned.commands
    port = command.url.rpartition(":")[2]
    assert arguments(planned) == (
        f"/opt/bin/llama-server --model {file} --alias tiny-untrained --host 127.0.0.1 --port {port} --parallel 4 "
        "--no-cache-prompt --seed 3 --threads 4 --n-gpu-layers 0 --ctx-size 2048"
    )
    assert command.variables == {"LLAMA_API_KEY": "sk-1"}
    on_gpus = arguments(plan("llama_cpp", tmp_path, gguf=str(file), tp=2))
    assert on_gpus.endswith("--cache-prompt --n-gpu-layers 999 --split-mode layer")
    with pytest.raises(ConfigError, match=r"engine\.max_running needs engine\.max_model_len"):
        plan("llama_cpp", tmp_path, gguf=str(file), max_running=4)
    with pytest.raises(ConfigError, match=r"engine\.tp=2: llama\.cpp has this on cuda alone"):
        plan("llama_cpp", tmp_path, device="cpu", gguf=str(file), tp=2)
    with pytest.raises(ConfigError, match="-c is one that llmkit sets itself"):
        plan("llama_cpp", tmp_path, gguf=str(file), max_model_len=8, extra_args=("-c", "16"))


def test_llama_cpp_python_has_underscores_in_its_flags(tmp_path, python):
    file = tmp_path / "model.gguf"
    file.touch()
    planned = plan("llama_cpp_python", tmp_path, python=python, device="cpu", gguf=str(file), max_model_len=512)
    port = planned.commands[0].url.rpartition(":")[2]
    assert arguments(planned) == (
        f"{python} -m llama_cpp.server --model {file} --model_alias tiny-untrained --host 127.0.0.1 --port {port} "
        "--n_ctx 512 --cache True --logits_all True --n_threads 4 --n_threads_batch 4"
    )


def test_the_only_gguf_file_of_a_directory_is_taken(tmp_path):
    model, unset = ModelConfig(path=str(tmp_path)), Config()
    with pytest.raises(ConfigError, match="has no GGUF file; name one with engine"):
        gguf_file(unset, model)
    (tmp_path / "a.gguf").touch()
    assert gguf_file(unset, model) == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ConfigError, match=r"has a\.gguf, b\.gguf; name one with engine"):
        gguf_file(unset, model)
    assert gguf_file(Config(gguf=str(tmp_path / "b.gguf")), model) == tmp_path / "b.gguf"
    with pytest.raises(ConfigError, match=r"engine\.gguf=none\.gguf: no such file"):
        gguf_file(Config(gguf="none.gguf"), model)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_refuses_a_trainer(name):
    plugin = plugins.load("engines", name)
    context = replace(EngineContext(TINY, DeviceConfig()), policy=object())
    with pytest.raises(ConfigError, match="llmkit brings no weights of a policy in training"):
        plugin.build(plugin.Config(), context)
