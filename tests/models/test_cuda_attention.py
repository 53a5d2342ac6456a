"""What can be seen of the GPU's attention on any machine: its masks, run by FlexAttention's plain form."""

from typing import Any

import pytest
import torch

from llmkit.data.collate import collate, collate_groups
from llmkit.models import cuda_attention
from llmkit.models.cuda_attention import can_run_varlen, family_rule, flex, varlen_attention
from llmkit.models.layout import Layout
from llmkit.models.packed import to_device
from llmkit.models.shared_layout import SharedLayout
from llmkit.types import Sample, Source


def sample(prompt: int, completion: int, seed: int) -> Sample:
    tokens = [1] * prompt + [seed + 2] * completion
    return Sample(tokens, [0.0] * prompt + [1.0] * completion, Source("x", 1))


@pytest.mark.parametrize("window", [None, 4])
def test_who_sees_whom_written_down_by_hand(window: int | None):
    # p p a b b | q: two branches of one prompt, then a sequence by itself
    sees = family_rule([(slice(0, 2), [slice(2, 3), slice(3, 5)]), (slice(5, 6), [])], window, torch.device("cpu"))
    index = torch.arange(6)
    found = sees(index, index, index[:, None], index[None, :]).int().tolist()
    assert found == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_a_window_is_counted_along_the_sequence_and_not_along_the_batch():
    sees = family_rule([(slice(0, 2), [slice(2, 3), slice(3, 5)])], 2, torch.device("cpu"))
    index = torch.arange(5)
    found = sees(index, index, index[:, None], index[None, :]).int().tolist()
    assert found[3] == [0, 1, 0, 1, 0]
    assert found[4] == [0, 0, 0, 1, 1]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_with_our_mask_is_our_attention():
    groups = [[sample(6, size, seed) for seed, size in enumerate((3, 8, 5))], [sample(4, 2, 9)]]
    batch = collate_groups(groups)
    torch.manual_seed(0)
    query = torch.randn(1, 4, len(batch.token_ids), 16)
    key, value = torch.randn(2, 1, 2, len(batch.token_ids), 16)
    layout = SharedLayout(batch)
    ours = layout.attend(query, key, value, 0.25, 0.0, None)
    torch.testing.assert_close(flex(query, key, value, layout.mask(None), 0.25), ours, rtol=1e-5, atol=1e-5)
    assert layout.mask(None) is layout.mask(None)


def test_the_varlen_kernel_is_for_half_precision_on_a_gpu_alone():
    assert not can_run_varlen(torch.zeros(1, 2, 3, 8))
    assert not can_run_varlen(torch.zeros(1, 2, 3, 8, dtype=torch.bfloat16))


@pytest.mark.parametrize("takes_groups", [True, False])
def test_the_varlen_kernel_is_told_of_boundaries_window_and_groups(takes_groups: bool, monkeypatch: pytest.MonkeyPatch):
    seen: dict[str, Any] = {}

    def kernel(query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> Any:
        seen.update(shapes=[query.shape, key.shape, value.shape], rest=rest, options=options)
        return query

    monkeypatch.setattr(cuda_attention, "_varlen_kernel", lambda: (kernel, takes_groups))
    query, key = torch.randn(1, 4, 7, 8), torch.randn(1, 2, 7, 8)
    boundaries = torch.tensor([0, 3, 7], dtype=torch.int32)
    found = varlen_attention(query, key, key, boundaries, 4, 0.5, 3)
    torch.testing.assert_close(found, query.transpose(1, 2))
    assert seen["rest"][:1] == (boundaries,)
    assert seen["rest"][2:] == (4, 4)
    assert seen["options"]["window_size"] == (2, 0)
    assert seen["options"]["scale"] == 0.5
    assert seen["shapes"][1] == ((7, 2, 8) if takes_groups else (7, 4, 8))
    assert seen["options"].get("enable_gqa", False) is takes_groups


@pytest.mark.gpu
@pytest.mark.parametrize("shared", [True, False])
def test_the_gpu_computes_what_the_cpu_does(shared: bool):
    rows = [sample(6, size, seed) for seed, size in enumerate((3, 8, 5))]
    batch = collate_groups([rows]) if shared else collate(rows)
    torch.manual_seed(0)
    states = [torch.randn(1, heads, len(batch.token_ids), 64) for heads in (4, 2, 2)]
    found = []
    for device in ("cpu", "cuda"):
        moved = [one.to(device, torch.bfloat16) for one in states]
        placed = (
            SharedLayout(to_device(batch, torch.device(device)))
            if shared
            else Layout(batch.sequence_ends, torch.device(device))
        )
        found.append(placed.attend(moved[0], moved[1], moved[2], 0.125, 0.0, None).cpu().float())
    torch.testing.assert_close(found[0], found[1], rtol=2e-2, atol=2e-2)
