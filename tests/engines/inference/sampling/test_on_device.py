"""Drawing where a look at a number would wait for the device: it happens once a step, at the end."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmkit.embedded.untrained import make_tokenizer
from llmkit.engines.inference.sampling import batch, distribution
from llmkit.engines.inference.sampling.batch import SamplerState, draw
from llmkit.engines.inference.sampling.context import SamplingContext
from llmkit.engines.inference.transfers import pick, put, to_host
from llmkit.types import SamplingParams, Structure

RULES = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=0.7),
    SamplingParams(top_k=5, top_p=0.9, min_p=0.01),
    SamplingParams(top_p=0.95, logprob_kind="processed", num_top_logprobs=3),
    SamplingParams(repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.2, logprob_kind="raw"),
    SamplingParams(logit_bias=((3, 2.0), (9, -1.0)), banned_token_ids=(4, 5), num_top_logprobs=2),
    SamplingParams(allowed_token_ids=(3, 4, 5), min_new_tokens=4, stop_token_ids=(3,)),
]


def states_of(rules: Sequence[SamplingParams], context: SamplingContext) -> list[SamplerState]:
    states = [SamplerState(sampling, seed, [3, 7, 7], context) for seed, sampling in enumerate(rules)]
    for state in states:
        state.accept(5)
    return states


@pytest.mark.parametrize("rules", [RULES, RULES[:1] * 2, RULES[1:2] * 3, RULES[2:4] * 2], ids=len)
def test_nothing_is_read_from_the_device_before_the_one_transfer(
    rules: list[SamplingParams], monkeypatch: pytest.MonkeyPatch
):
    transfers: list[list[torch.Size]] = []

    def transfer(tensors: Sequence[Tensor]) -> list[np.ndarray]:
        transfers.append([tensor.shape for tensor in tensors])
        return [np.zeros(tensor.shape) for tensor in tensors]

    monkeypatch.setattr(batch, "to_host", transfer)
    # A tensor without numbers: whoever looks at one gets an error.
    device = torch.device("meta")
    drawn = draw(
        torch.empty(len(rules), 3000, device=device), states_of(rules, SamplingContext(3000, (2,), device=device))
    )
    assert drawn.token_ids == [0] * len(rules)
    assert len(transfers) == 1
    assert all(sum(shape) <= 3 * len(rules) + 3 for shape in transfers[0]), "numbers of rows, not of the vocabulary"


def test_the_mask_of_a_structure_is_made_before_it_is_sent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch, "to_host", lambda tensors: [np.zeros(tensor.shape) for tensor in tensors])
    tokenizer, device = make_tokenizer(), torch.device("meta")
    context = SamplingContext(len(tokenizer) + 5, (tokenizer.eos_token_id,), tokenizer, device)
    rules = [SamplingParams(structure=Structure("regex", "[a-z]{3}")), SamplingParams()]
    states = [SamplerState(sampling, 0, [3], context) for sampling in rules]
    assert draw(torch.empty(2, context.vocab_size, device=device), states).token_ids == [0, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            SamplingParams,
            temperature=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
            top_k=st.sampled_from([0, 1, 5, 40, 100]),
            top_p=st.sampled_from([0.1, 0.6, 0.95, 1.0]),
            min_p=st.sampled_from([0.0, 0.1]),
            num_top_logprobs=st.sampled_from([0, 2]),
            logprob_kind=st.sampled_from(["scaled", "processed", "raw"]),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 1000),
)
def test_what_is_drawn_ahead_is_what_is_drawn_with_looks_on_the_way(rules: list[SamplingParams], seed: int):
    logits = torch.randn(len(rules), 200, generator=torch.Generator().manual_seed(seed))
    # Ties, which only the order of ids decides.
    logits = (logits * 4).round() / 4
    context = SamplingContext(200)
    expected = draw(logits, states_of(rules, context))
    with pytest.MonkeyPatch.context() as patch:
        for module in (batch, distribution):
            patch.setattr(module, "FREE_TO_READ", ())
        patch.setattr(distribution, "FIRST_LOOK", 16)
        found = draw(logits, states_of(rules, context))
    assert found == expected


def test_tensors_of_all_kinds_come_in_one_transfer():
    whole, logprobs, flags = torch.tensor([[1 << 40, 3]]), torch.tensor([-0.5, -float("inf")]), torch.tensor([True])
    found = to_host([whole, logprobs, torch.zeros(0), flags])
    assert [array.tolist() for array in found] == [[[1 << 40, 3]], [-0.5, -float("inf")], [], [1.0]]


def test_rows_are_picked_and_put():
    values = torch.arange(6).view(3, 2)
    assert pick(values, [2, 0]).tolist() == [[4, 5], [0, 1]]
    assert put(values.clone(), [1], torch.tensor([[9, 9]])).tolist() == [[0, 1], [9, 9], [4, 5]]
