"""Weights through a real process group, into processes that run what vLLM's workers run."""

import asyncio
import base64
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmkit.engines.inference.remote.contract import Server
from llmkit.engines.inference.weight_sync import couriers, deadlines
from llmkit.engines.inference.weight_sync.contract import TakingFacts
from llmkit.engines.inference.weight_sync.couriers import GroupCourier, ipc_handle
from llmkit.engines.inference.weight_sync.direct_delivery import DirectDelivery
from llmkit.engines.inference.weight_sync.flat_buffers import flatten, layout, ordered
from llmkit.engines.inference.weight_sync.handover import Terms
from llmkit.engines.inference.weight_sync.policy_weights import PolicyWeights
from llmkit.errors import EngineError

from .servers import policy_of, tiny_model, train_a_step

ROOT = Path(__file__).resolve().parents[4]
WORKER = ROOT / "plugins/llmkit-vllm/src/llmkit_vllm/worker"
SECONDS = 60.0


class WorkerServer:
    """A server whose workers are processes."""

    def __init__(self, index, path, num_workers=1):
        self.server = Server(index, f"http://127.0.0.1:{index}", "m")
        self.num_workers = num_workers
        self.path = path
        self.processes = []

    async def start(self):
        environment = {**os.environ, "PYTHONPATH": str(WORKER), "OMP_NUM_THREADS": "1"}
        for rank in range(self.num_workers):
            script = str(Path(__file__).with_name("worker_process.py"))
            pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
            process = await asyncio.create_subprocess_exec(sys.executable, script, str(rank), env=environment, **pipes)
            self.processes.append(process)

    async def ask(self, method, message):
        async def one(rank, process):
            said = {**message, "method": method, "path": str(self.path / f"{self.server.index}-{rank}")}
            process.stdin.write(json.dumps(said).encode() + b"\n")
            line = await process.stdout.readline()
            if not line:
                raise EngineError(f"server {self.server.index}: worker {rank} is gone")
            return json.loads(line)

        return list(await asyncio.gather(*(one(rank, process) for rank, process in enumerate(self.processes))))

    async def stop(self):
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def arrived(self, rank=0):
        return load_file(self.path / f"{self.server.index}-{rank}")


class WorkerReceiver:
    """Implements `Receiver` for worker servers."""

    transports = ("gloo",)

    def refusal(self, transport):
        return transport

    async def facts(self, link, seconds):
        return TakingFacts(torch.bfloat16, link.num_workers, "cpu")

    async def connect(self, link, update, group):
        await link.ask("connect", group)

    async def begin(self, link, update):
        await link.ask("begin", {})

    async def put(self, link, update, parcel):
        return await link.ask("put", parcel.message)

    async def commit(self, link, update):
        await link.ask("commit", {})

    async def abort(self, link, update):
        await link.ask("abort", {})


def run(story, *servers):
    async def whole():
        for one in servers:
            await one.start()
        try:
            await asyncio.wait_for(story(), 120)
        finally:
            for one in servers:
                await one.stop()

    asyncio.run(whole())


def delivery_of(policy, seconds=SECONDS):
    receiver = WorkerReceiver()
    terms = Terms(dtype=None, bucket_bytes=8192, seconds=seconds, compares=True)
    courier = GroupCourier("gloo", "127.0.0.1", receiver, seconds)
    return DirectDelivery(PolicyWeights(policy), receiver, courier, terms, torch.device("cpu"))


def expected(policy):
    return dict(PolicyWeights(policy).tensors(torch.bfloat16))


def same(found, wanted):
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_all_workers_get_the_weights_update_after_update(tmp_path):
    policy = policy_of(tiny_model())
    servers = [WorkerServer(0, tmp_path, num_workers=2), WorkerServer(1, tmp_path)]
    delivery = delivery_of(policy)

    async def story():
        for version in (1, 2):
            train_a_step(policy)
            assert await delivery.deliver(servers, version) == {}
            wanted = expected(policy)
            assert [
                same(one.arrived(rank), wanted) for one, rank in ((servers[0], 0), (servers[0], 1), (servers[1], 0))
            ]
        delivery.close()
        delivery.close()

    run(story, *servers)


def test_a_server_that_is_started_again_gets_them_while_the_policy_is_the_same(tmp_path):
    policy = policy_of(tiny_model())
    server, fresh = WorkerServer(0, tmp_path), WorkerServer(0, tmp_path / "fresh")
    fresh.path.mkdir()
    delivery = delivery_of(policy)

    async def story():
        await delivery.deliver([server], 1)
        await delivery.again(fresh, 1)
        assert same(fresh.arrived(), expected(policy))
        train_a_step(policy)
        with pytest.raises(EngineError, match="the policy has changed since the last update"):
            await delivery.again(fresh, 1)
        delivery.close()

    run(story, server, fresh)


def test_a_killed_worker_is_the_failure_of_its_server_alone(tmp_path):
    policy = policy_of(tiny_model())
    servers = [WorkerServer(0, tmp_path), WorkerServer(1, tmp_path)]
    delivery = delivery_of(policy)

    async def story():
        await delivery.deliver(servers, 1)
        servers[1].processes[0].kill()
        await servers[1].processes[0].wait()
        train_a_step(policy)
        failures = await delivery.deliver(servers, 2)
        assert list(failures) == [1]
        assert re.search("server 1", str(failures[1]))
        assert same(servers[0].arrived(), expected(policy))
        delivery.close()

    run(story, *servers)


def test_a_server_that_does_not_join_ends_in_an_error_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(deadlines, "GRACE_SECONDS", 0.5)
    server = WorkerServer(0, tmp_path)
    delivery = delivery_of(policy_of(tiny_model()), seconds=1.0)

    async def deaf(link, update, group):
        pass

    monkeypatch.setattr(delivery._receiver, "connect", deaf)

    async def story():
        failures = await delivery.deliver([server], 1)
        assert "joining a process group: server 0" in str(failures[0])
        delivery.close()

    run(story, server)


def test_nccl_is_refused_for_servers_without_gpus(tmp_path):
    receiver = WorkerReceiver()
    courier = GroupCourier("nccl", "127.0.0.1", receiver, 5.0)
    terms = Terms(dtype=None, bucket_bytes=8192, seconds=5.0, compares=True)
    weights = PolicyWeights(policy_of(tiny_model()))
    delivery = DirectDelivery(weights, receiver, courier, terms, torch.device("cpu"))
    with pytest.raises(EngineError, match="is on cpu, and nccl needs GPUs"):
        asyncio.run(delivery.deliver([WorkerServer(0, tmp_path)], 1))


def test_tensors_of_several_types_lie_aligned_in_a_buffer():
    bucket = ordered([
        ("bytes", torch.arange(3, dtype=torch.uint8)),
        ("halves", torch.arange(3, dtype=torch.bfloat16)),
        ("words", torch.arange(2, dtype=torch.float32)),
    ])  # fmt: skip
    assert layout(bucket) == [["words", "float32", [2]], ["halves", "bfloat16", [3]], ["bytes", "uint8", [3]]]
    buffer = flatten(bucket, torch.device("cpu"))
    assert buffer.numel() == 8 + 6 + 3
    assert buffer[:8].view(torch.float32).tolist() == [0.0, 1.0]
    assert buffer[8:14].view(torch.bfloat16).tolist() == [0.0, 1.0, 2.0]


class SharedStorage:
    def _share_cuda_(self):
        return 0, b"\x00memory\xff", 4096, 512, b"\x01counter", 16, b"\x02event", True


class SharedBuffer:
    device = torch.device("cpu")

    def untyped_storage(self):
        return SharedStorage()

    def numel(self):
        return 1000


def test_a_handle_is_numbers_and_text(monkeypatch):
    properties = type("Properties", (), {"uuid": "GPU-1"})()
    monkeypatch.setattr(couriers.torch.cuda, "get_device_properties", lambda device: properties)
    handle = json.loads(json.dumps(ipc_handle(SharedBuffer())))
    assert base64.b64decode(handle["memory"]) == b"\x00memory\xff"
    assert base64.b64decode(handle["counter"]) == b"\x01counter"
    assert base64.b64decode(handle["event"]) == b"\x02event"
    numbers = {key: handle[key] for key in ("gpu", "size", "storage_size", "storage_offset", "counter_offset")}
    assert numbers == {"gpu": "GPU-1", "size": 1000, "storage_size": 4096, "storage_offset": 512, "counter_offset": 16}
