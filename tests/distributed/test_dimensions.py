import pytest

from llmkit.config.parallel import ParallelConfig
from llmkit.distributed.dimensions import Dimensions, check_units, find_dimensions
from llmkit.distributed.place import Place, find_place
from llmkit.errors import ConfigError

TORCHRUN = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("settings", "world_size", "expected"),
    [
        ({}, 1, Dimensions()),
        ({}, 4, Dimensions(replicate=4)),
        ({"tensor": 2}, 4, Dimensions(replicate=2, tensor=2)),
        ({"strategy": "fsdp"}, 4, Dimensions(shard=4, is_sharded=True)),
        ({"shard": 2}, 4, Dimensions(replicate=2, shard=2, is_sharded=True)),
        ({"replicate": 2}, 8, Dimensions(replicate=2, shard=4, is_sharded=True)),
        ({"strategy": "fsdp", "tensor": 2}, 8, Dimensions(shard=4, tensor=2, is_sharded=True)),
        ({"cpu_offload": True}, 1, Dimensions(is_sharded=True)),
    ],
)
def test_the_mesh(settings: dict, world_size: int, expected: Dimensions):
    found = find_dimensions(ParallelConfig(**settings), world_size)
    assert found == expected
    assert found.world_size == world_size


@pytest.mark.parametrize(
    ("settings", "world_size", "message"),
    [
        ({"tensor": 2}, 3, "parallel.tensor=2 does not divide the 3 processes; it may be 1, 3"),
        ({"replicate": 3}, 4, "parallel.replicate=3 does not divide the 4 processes that share rows"),
        (
            {"shard": 3},
            4,
            "parallel.replicate=1 x parallel.shard=3 x parallel.tensor=1 is 3, and there are 4 processes",
        ),
        ({"strategy": "ddp", "shard": 2}, 2, "parallel.strategy=ddp keeps the whole model in every process"),
    ],
)
def test_processes_that_do_not_fit(settings: dict, world_size: int, message: str):
    with pytest.raises(ConfigError, match=message):
        find_dimensions(ParallelConfig(**settings), world_size)


def test_fewer_rows_than_processes():
    with pytest.raises(ConfigError, match=r"batch\.rows_per_step=3 is less than the 4 processes"):
        check_units(Dimensions(replicate=2, shard=2, tensor=2), "batch.rows_per_step", 3)
    check_units(Dimensions(replicate=2, shard=2, tensor=2), "batch.rows_per_step", 4)


def test_the_place_that_torchrun_gives():
    assert find_place({"RANK": "3", "WORLD_SIZE": "4", **TORCHRUN}) == Place(3, 4, 1, 2)
    assert find_place({}) == Place(0, 1, 0, 1)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT not"),
        ({"RANK": "x", "WORLD_SIZE": "2", **TORCHRUN}, "RANK=x WORLD_SIZE=2 .* must be a whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2", **TORCHRUN}, "RANK=2 of WORLD_SIZE=2: there is no such process"),
    ],
)
def test_an_environment_that_makes_no_sense(environ: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        find_place(environ)
