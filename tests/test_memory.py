import traceback

import pytest
import torch

from llmkit.errors import LLMKitError, OutOfMemory
from llmkit.memory import during, is_out_of_memory

CPU = (
    "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to allocate {} bytes."
)
CUDA = "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 23.5 GiB"


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (RuntimeError(CPU.format(4_000_000_000)), ", where 4.0 GB more were asked for"),
        (torch.OutOfMemoryError(CUDA), ", where 1.6 GB more were asked for"),
        (MemoryError(), ""),
        (OSError(12, "Cannot allocate memory"), ""),
    ],
)
def test_says_what_was_being_done_and_how_much_was_asked_for(error: Exception, asked: str):
    with pytest.raises(OutOfMemory) as caught, during("backward", "the backward pass"):
        raise error
    assert str(caught.value) == f"out of memory in the backward pass{asked}."
    assert caught.value.exit_code == 1


def test_the_innermost_block_names_it():
    with (
        pytest.raises(OutOfMemory, match="in the head") as caught,
        during("forward", "all"),
        during("head", "the head"),
    ):
        raise MemoryError
    assert caught.value.work == "head"


def test_what_an_error_came_from_counts():
    wrapped = LLMKitError("the model cannot be loaded")
    wrapped.__cause__ = MemoryError()
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("can't allocate memory"), KeyError()])
def test_other_errors_pass(error: Exception):
    with pytest.raises(type(error)) as caught, during("forward", "everything"):
        raise error
    assert caught.value is error


def test_lets_go_of_what_the_failed_call_held():
    def compute() -> None:
        held = torch.zeros(3)
        raise RuntimeError(CPU.format(held.numel()))

    with pytest.raises(OutOfMemory) as caught, during("forward", "the forward pass"):
        compute()
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__context__.__traceback__)]  # type: ignore[union-attr]
    assert [frame.f_code.co_name for frame in frames][-1] == "compute"
    assert "held" not in frames[-1].f_locals
