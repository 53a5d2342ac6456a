import json
import socket
import sys
from pathlib import Path

import pytest

from llmkit import machine
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.config.servers import ServerEngineConfig
from llmkit.engines.inference.contract import Demand, EngineContext
from llmkit.engines.servers.opening import Door, Plan, open_fleet, plan_servers
from llmkit.engines.servers.program import (
    Additions,
    Argument,
    Entry,
    Flag,
    Hint,
    Program,
    Situation,
    Stage,
    Switch,
    Variable,
)
from llmkit.errors import ConfigError, EngineError

from .conftest import SCRIPT, get, lives

TINY = ModelConfig(path="builtin:tiny-untrained")  # 8 heads, 4 key-value heads, 3 layers, 2048 tokens


def slots(situation: Situation) -> Additions:
    return Additions(variables={"CORES": str(situation.slots)})


PROGRAM = Program(
    name="small",
    title="Small",
    command=("{python}", str(SCRIPT)),
    options={
        "model": (Variable("MODEL"),),
        "served_name": (Flag("--name"),),
        "port": (Flag("--port"),),
        "api_key": (Variable("API_KEY"), Flag("--api-key")),
        "dtype": (Variable("DTYPE"),),
        "tp": (Variable("TP"),),
        "max_model_len": (Variable("LENGTH"),),
        "cache_memory_gb": (Variable("CACHE"),),
    },
    additions=slots,
    stages=(Stage("opening the port", "opening its port"),),
    hints=(Hint("Address already in use", "Another program has its port: start again"),),
)
WORDY = Program(
    name="wordy",
    title="Wordy",
    command=("{program}", "run", "{config}"),
    options={
        "model": (Argument(),),
        "port": (Entry(("server", "port")),),
        "tp": (Flag("--tp_size"), Entry(("models", 0, "size"))),
        "eager": (Switch("--eager"),),
        "prefix_cache": (Switch("--no-cache", when=False),),
        "max_loras": (Switch("--lora"),),
        "max_lora_rank": (Flag("--rank"),),
    },
    choices={"max_lora_rank": (8, 16, 32)},
    aliases={"-tp": "--tp_size", "--model": "model"},
    config_name="config.json",
    config_base={"models": [{"weights": 1}], "version": "1"},
    additions=lambda situation: Additions(("--quiet",)),
    option_devices={"eager": "cuda"},
)


@pytest.fixture(autouse=True)
def _four_cores_and_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "usable_cores", lambda: [2, 3, 5, 7])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("LLMKIT_DATA", str(tmp_path / "data"))


def plan(
    tmp_path: Path, program: Program = PROGRAM, model: ModelConfig = TINY, device: str = "auto", **settings
) -> Plan:
    known = {"python": sys.executable, "demand": None, "threads": None} | settings
    context = EngineContext(
        model,
        DeviceConfig.model_validate({"device": device, "threads": known.pop("threads")}),
        demand=known.pop("demand"),
    )
    return plan_servers(program, ServerEngineConfig.model_validate(known), context, tmp_path)


def refusal(tmp_path: Path, **settings) -> str:
    with pytest.raises(ConfigError) as refused:
        plan(tmp_path, **settings)
    return str(refused.value)


def test_options_become_arguments_variables_and_entries_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/opt/{name}")
    wordy = Program(**(vars(WORDY) | {"executable": "wordy"}))
    (command,) = plan(tmp_path, wordy, python=None, tp=2, prefix_cache=False, max_loras=1, max_lora_rank=16).commands
    model = command.arguments[3]
    assert (Path(model) / "config.json").is_file()
    assert command.arguments == (
        "/opt/wordy", "run", f"{tmp_path}/0-config.json", model, "--tp_size", "2", "--no-cache", "--lora", "--rank",
        "16", "--quiet",
    )  # fmt: skip
    port = int(command.url.rpartition(":")[2])
    (text,) = command.files.values()
    document = {"models": [{"weights": 1, "size": 2}], "version": "1", "server": {"port": port}}
    assert json.loads(text) == document
    assert WORDY.config_base == {"models": [{"weights": 1}], "version": "1"}


def test_each_server_has_its_own_port_and_cores(tmp_path):
    commands = plan(tmp_path, dp=2, tp=2).commands
    assert [command.variables["CORES"] for command in commands] == ["((2,), (3,))", "((5,), (7,))"]
    assert len({command.url for command in commands}) == 2
    assert plan(tmp_path, dp=3).commands[0].variables["CORES"] == "((2, 3),)"
    assert plan(tmp_path, threads=1).commands[0].variables["CORES"] == "((2,),)"


def test_each_server_sees_its_own_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c,GPU-d")
    planned = plan(tmp_path, dp=2, tp=2)
    assert [one.variables["CUDA_VISIBLE_DEVICES"] for one in planned.commands] == ["GPU-a,GPU-b", "GPU-c,GPU-d"]
    (command,) = plan(tmp_path, gpus=(3,)).commands
    assert command.variables["CUDA_VISIBLE_DEVICES"] == "GPU-d"
    assert "cache_memory_gb" not in command.variables


def test_more_than_there_is_is_refused_before_anything_starts(tmp_path, monkeypatch):
    assert refusal(tmp_path, tp=8).startswith("engine.tp=8 x engine.pp=1 x engine.dp=1 needs 8 cores, one for each")
    assert "raise device.threads" in refusal(tmp_path, dp=2, threads=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "needs 2 GPUs, and there are 1" in refusal(tmp_path, dp=2)
    assert "engine.gpus names GPU 1, and this machine has 1, from 0" in refusal(tmp_path, gpus=(1,))


def test_a_device_that_is_not_here_is_refused(tmp_path):
    assert refusal(tmp_path, device="cuda") == "Small needs at least one GPU, and this machine shows none"
    assert "device.device=mps: Small runs on cuda and cpu" in refusal(tmp_path, device="mps")
    only_npu = Program(**(vars(PROGRAM) | {"devices": ("npu",)}))
    assert refusal(tmp_path, program=only_npu) == "Small needs at least one NPU, and this machine shows none"


def test_what_the_model_does_not_allow_is_refused_all_at_once(tmp_path):
    text = refusal(tmp_path, tp=3, max_model_len=4096)
    assert "engine.tp=3 does not divide the model's 8 attention heads; take a divisor of 8" in text
    assert "engine.max_model_len=4096: the model's context has 2048 tokens" in text
    assert "engine.pp=4: the model has 3 layers" in refusal(tmp_path, pp=4)


def test_options_that_a_program_does_not_know_are_refused(tmp_path):
    assert "engine.seed=3: Small has no such option" in refusal(tmp_path, seed=3)
    assert "engine.eager=True: Wordy has this on cuda alone, and runs on cpu" in refusal(
        tmp_path, program=WORDY, eager=True
    )
    assert "model.trust_remote_code=True: Small has no such" in refusal(
        tmp_path, model=ModelConfig(path="builtin:tiny-untrained", trust_remote_code=True)
    )


def test_a_value_that_is_none_of_the_choices_is_refused_with_the_next(tmp_path):
    text = refusal(tmp_path, program=WORDY, max_loras=1, max_lora_rank=12)
    assert text == "engine.max_lora_rank=12: Wordy takes 8, 16, 32; 16 holds it too"


@pytest.mark.parametrize("word", ["--tp_size=4", "--tp-size", "-tp"])
def test_an_extra_argument_that_llmkit_writes_is_refused(tmp_path, word):
    assert "is written from engine.tp; set that instead" in refusal(tmp_path, program=WORDY, extra_args=(word, "4"))
    assert "--model is written from model.path" in refusal(tmp_path, program=WORDY, extra_args=("--model", "x"))
    assert "--quiet is one that llmkit sets itself" in refusal(tmp_path, program=WORDY, extra_args=("--quiet",))


def test_extra_arguments_and_variables_are_passed_on(tmp_path):
    command = plan(tmp_path, extra_args=("--fault", "x"), extra_env={"MODEL": "mine", "MORE": "1"}).commands[0]
    assert command.arguments[-2:] == ("--fault", "x")
    assert command.variables["MODEL"] == "mine"
    assert command.variables["MORE"] == "1"


def test_settings_that_change_the_model_are_refused(tmp_path):
    text = refusal(tmp_path, model=ModelConfig(path="builtin:tiny-untrained", add_tokens=("<tool>",)))
    assert "model.add_tokens=('<tool>',): Small reads the checkpoint as it is" in text


def test_the_length_and_the_cache_follow_from_what_is_asked_for(tmp_path, monkeypatch):
    memory = {"total": 10**12, "available": 10**12, "container_limit": None}
    monkeypatch.setattr(machine, "memory", lambda: memory)
    (command,) = plan(tmp_path, demand=Demand(num_completions=1_000, max_tokens=500)).commands
    # 2 x 3 layers x 4 heads x 32 values x 4 bytes = 3072 bytes for each of 500,000 tokens
    assert command.variables["LENGTH"] == "500"
    assert float(command.variables["CACHE"]) == pytest.approx(1.536)
    memory["available"] = 6 * 10**9
    (command,) = plan(tmp_path).commands
    assert "LENGTH" not in command.variables
    assert float(command.variables["CACHE"]) == pytest.approx(1.2)
    (command,) = plan(tmp_path, cache_memory_gb=0.25).commands
    assert command.variables["CACHE"] == "0.25"


def test_the_dtype_is_the_models_own_unless_set(tmp_path):
    assert plan(tmp_path).commands[0].variables["DTYPE"] == "float32"
    assert plan(tmp_path, dtype="bfloat16").commands[0].variables["DTYPE"] == "bfloat16"


def test_a_command_is_shown_without_its_key(tmp_path):
    (command,) = plan(tmp_path, api_key="sk-secret").commands
    assert "sk-secret" in command.arguments
    assert "sk-secret" not in str(command)
    assert "API_KEY='***'" in str(command) or "API_KEY=***" in str(command)


def test_servers_see_nothing_of_llmkits_own_environment(tmp_path, monkeypatch):
    for name in ("PYTHONPATH", "RANK", "OMP_NUM_THREADS", "LLMKIT__SEED", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PATH", "/bin")
    environment = plan(tmp_path).commands[0].environment()
    assert environment["PATH"] == "/bin"
    assert not {"PYTHONPATH", "RANK", "OMP_NUM_THREADS", "LLMKIT__SEED", "TORCHELASTIC_RUN_ID"} & set(environment)


def test_a_fleet_starts_and_ends_as_one(tmp_path):
    told: list[str] = []
    config = ServerEngineConfig(
        python=sys.executable, dp=2, log_dir=str(tmp_path), max_model_len=64, served_name="poet"
    )
    fleet = open_fleet(PROGRAM, config, EngineContext(TINY, DeviceConfig()), tell=told.append)
    try:
        assert [server.index for server in fleet.servers] == [0, 1]
        assert [fleet.num_starts(index) for index in (0, 1)] == [1, 1]
        for server in fleet.servers:
            assert server.model == "poet"
            assert get(f"{server.url}/v1/models")["data"] == [{"id": "poet"}]
            assert get(f"{server.url}/environment")["LENGTH"] == "64"
        assert told[0] == f"Starting 2 servers of Small on cpu 2,3, 5,7; logs in {tmp_path}"
        assert (tmp_path / "small-1.log").read_text() == "opening the port\n"
    finally:
        fleet.close()
        fleet.close()
    for server in fleet.servers:
        with pytest.raises(OSError, match="refused"):
            get(server.url)


def test_one_server_that_fails_ends_the_others(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        door = Door(port=holder.getsockname()[1])
        config = ServerEngineConfig(python=sys.executable, log_dir=str(tmp_path))
        with pytest.raises(EngineError, match="Another program has its port: start again"):
            open_fleet(PROGRAM, config, EngineContext(TINY, DeviceConfig()), door=door, tell=lambda text: None)


def test_servers_that_run_already_are_asked_for_their_model(nursery, tmp_path):
    server = nursery.started()
    context = EngineContext(TINY, DeviceConfig())
    fleet = open_fleet(PROGRAM, ServerEngineConfig(urls=(f"{server.command.url}/v1/",)), context)
    (found,) = fleet.servers
    assert (found.url, found.model, found.api_key) == (server.command.url, "small", None)
    assert (fleet.num_starts(0), fleet.failure(0)) == (1, None)
    fleet.close()
    assert all(lives(pid) for pid in nursery.processes())


def test_a_server_with_two_models_wants_a_choice(nursery):
    server = nursery.started("two models")
    context = EngineContext(TINY, DeviceConfig())
    with pytest.raises(EngineError, match=r"serves poet, critic; choose one with engine\.served_name"):
        open_fleet(PROGRAM, ServerEngineConfig(urls=(server.command.url,)), context)
    fleet = open_fleet(PROGRAM, ServerEngineConfig(urls=(server.command.url,), served_name="poet"), context)
    assert fleet.servers[0].model == "poet"


def test_a_server_that_asks_for_a_key_gets_it(nursery):
    server = nursery.started(command=nursery.command(arguments=("--api-key", "sk-1"), api_key="sk-1"))
    context = EngineContext(TINY, DeviceConfig())
    with pytest.raises(EngineError, match=r"answers with status 401 and no models; set engine\.served_name"):
        open_fleet(PROGRAM, ServerEngineConfig(urls=(server.command.url,)), context)
    config = ServerEngineConfig.model_validate({"urls": [server.command.url], "api_key": "sk-1"})
    assert open_fleet(PROGRAM, config, context).servers[0].api_key == "sk-1"


@pytest.mark.parametrize(
    ("urls", "words"),
    [
        (("localhost:8000",), "is no address of a server"),
        (("http://h:x",), "is no address of a server"),
        (("http://h/api",), "has a path; write http://h alone"),
        (("http://h:1", "http://h:1/v1"), "names one server twice"),
    ],
)
def test_an_address_that_is_none_is_refused(urls, words):
    with pytest.raises(ConfigError, match=words):
        open_fleet(PROGRAM, ServerEngineConfig(urls=urls, served_name="m"), EngineContext(TINY, DeviceConfig()))


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EngineError, match="the server does not answer"):
        open_fleet(PROGRAM, ServerEngineConfig(urls=("http://127.0.0.1:9",)), EngineContext(TINY, DeviceConfig()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"urls": ["http://h"], "tp": 2}, "urls names servers that run already, on which tp has no effect"),
        ({"memory_share": 0.5, "cache_memory_gb": 1}, "both size the KV cache"),
        ({"max_lora_rank": 8}, "has no effect with max_loras=0"),
        ({"gpus": [1, 1], "tp": 2}, r"gpus=\[1, 1\] are 1, and tp=2 x pp=1 x dp=1 take 2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ServerEngineConfig.model_validate(settings)
