from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from llmkit.engines.inference.native.cuda.waiting import Waits


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize(
    ("work", "name"),
    [
        (lambda x: bool(x.any()), "__bool__"),
        (lambda x: x[0].item(), "item"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: int(x[0]), "__int__"),
        (lambda x: range(5)[x.long()[0] * 0], "__index__"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.masked_select(x > 0), "masked_select"),
        (lambda x: torch.where(x > 0), "nonzero"),
        (lambda x: torch.nn.functional.one_hot(x.long().abs()), "_local_scalar_dense"),
        (lambda x: x.index_put_((x > 0,), x[0]), "index_put_"),
        (lambda x: x.repeat_interleave(x.long().abs()), "repeat_interleave"),
        (lambda x: x.unique(), "_unique2"),
    ],
)
def test_what_waits_for_a_device_is_found(work: Callable[[Tensor], object], name: str, mode: Callable[[], object]):
    with mode():  # type: ignore[attr-defined]
        numbers = torch.tensor([2.0, -1.0, 3.0])
        with Waits() as waits:
            work(numbers)
            work(numbers)
    assert name in waits.found
    assert len(set(waits.found)) == len(waits.found)


@torch.inference_mode()
def test_what_needs_no_answer_is_not():
    numbers = torch.tensor([2.0, -1.0, 3.0])
    with Waits() as waits:
        numbers[torch.tensor([0, 2])] = torch.where(numbers[:2] > 0, numbers[:2], 0.0)
        numbers.to(torch.float64).softmax(0).index_select(0, numbers.argmax()[None])
        numbers.repeat_interleave(2)
        numbers.repeat_interleave(torch.tensor([1, 0, 2]), output_size=3)
    assert waits.found == []
