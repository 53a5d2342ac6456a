"""The C++ step against transformers, and against itself."""

import shutil

import pytest
import torch
from torch import nn

from llmkit.engines.inference.native.cpu.runner import CpuRunner
from llmkit.errors import EngineError

from .cpu_models import (
    FAMILIES,
    VOCAB_SIZE,
    greedy,
    make_model,
    make_policy,
    make_step,
    prompts,
    reference_greedy,
    reference_logits,
)

NUM_BLOCKS = 64
BF16 = torch.bfloat16


def make_runner(model, compute_dtype=torch.float32, **options):
    runner = CpuRunner(make_policy(model, compute_dtype), **options)
    runner.allocate(NUM_BLOCKS)
    return runner


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family):
    model, (prompt,) = make_model(family), prompts(37)
    assert CpuRunner.why_not(make_policy(model)) is None
    logits = make_runner(model).forward(make_step([(prompt, 0, [5, 2, 7])], range(37)))
    wanted = reference_logits(model, prompt)
    assert wanted.std() > 0.5
    assert (logits - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_generate_in_a_ragged_batch_with_prompts_in_chunks(family):
    model, given = make_model(family), prompts(1, 15, 16, 17, 40)
    wanted = [reference_greedy(model, prompt, 12) for prompt in given]
    assert greedy(make_runner(model, num_threads=2), given, 12, chunk=7) == wanted


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("family", ["mistral", "qwen3", "llama"])
def test_a_row_depends_on_nothing_but_its_own_tokens(family, dtype):
    model, given = make_model(family, dtype), prompts(33, 21, 5, 40, 18, 1, 16, 2)
    together, alone = make_runner(model, dtype, num_threads=2), make_runner(model, dtype, num_threads=1)
    blocks = [range(3 * s, 3 * s + 3) for s in range(len(given))]
    batch = together.forward(make_step([(p, 0, b) for p, b in zip(given, blocks, strict=True)]))
    for row, prompt in enumerate(given):
        for token_index, token in enumerate(prompt):
            single = alone.forward(make_step([([token], token_index, [9, 4, 11])]))
        assert torch.equal(single[0], batch[row])


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "phi3"])
def test_bfloat16_is_as_near_to_the_exact_logits_as_torch_is(family):
    model, (prompt,) = make_model(family, BF16), prompts(40)
    exact = reference_logits(_doubled(model), prompt)
    ours = make_runner(model, BF16).forward(make_step([(prompt, 0, [0, 1, 2])], range(40)))
    assert ours.dtype == BF16
    ours_off = (ours.double() - exact).square().mean().sqrt()
    torch_off = (reference_logits(model, prompt).double() - exact).square().mean().sqrt()
    assert 0 < ours_off < 1.1 * torch_off


def _doubled(model):
    """The same weights, computed with in double precision."""
    copy = type(model)(model.config).eval()
    copy.load_state_dict(model.state_dict())
    return copy.double()


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_float32_parameters_under_bfloat16_products(family):
    model, (prompt,) = make_model(family), prompts(20)
    with torch.autocast("cpu", BF16):
        wanted = reference_logits(model, prompt)
    runner = make_runner(model, BF16)
    step = make_step([(prompt, 0, [3, 1])], range(20))
    logits = runner.forward(step)
    assert logits.dtype == wanted.dtype == BF16
    torch.testing.assert_close(logits, wanted, rtol=0.05, atol=0.05)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(3)
    assert torch.equal(runner.forward(step), logits)  # what was rounded is of the weights before
    runner.weights_changed()
    with torch.autocast("cpu", BF16):
        # The model is a policy's by now and has bfloat16 between its layers, where the runner has float32.
        torch.testing.assert_close(runner.forward(step), reference_logits(model, prompt), rtol=0.05, atol=0.1)


def test_without_a_copy_weights_are_the_policys_own():
    model, (prompt,) = make_model("qwen3"), prompts(6)
    runner, step = make_runner(model, copies_weights=False), make_step([(prompt, 0, [3])], range(6))
    runner.forward(step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1) if parameter.dim() == 2 else None
    torch.testing.assert_close(runner.forward(step), reference_logits(model, prompt), rtol=1e-5, atol=2e-5)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    runner.weights_changed()
    torch.testing.assert_close(runner.forward(step), reference_logits(model, prompt), rtol=1e-5, atol=4e-5)


@pytest.mark.parametrize(
    ("parameters", "products"), [(torch.float32, torch.float32), (torch.float32, BF16), (BF16, BF16)]
)
@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_a_copy_of_the_weights_changes_no_bit(family, parameters, products):
    model, (prompt,) = make_model(family, parameters), prompts(21)
    step = make_step([(prompt, 0, [3, 1])], range(21))
    copied, shared = (make_runner(model, products, num_threads=2, copies_weights=copies) for copies in (True, False))
    before = copied.forward(step)
    assert torch.equal(before, shared.forward(step))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    copied.weights_changed()
    shared.weights_changed()
    assert torch.equal(copied.forward(step), shared.forward(step))
    assert not torch.equal(copied.forward(step), before)


@pytest.mark.parametrize(("available", "is_copied"), [(None, True), (1 << 40, True), (1 << 16, False)])
def test_weights_are_copied_where_that_takes_little_of_what_is_free(monkeypatch, available, is_copied):
    monkeypatch.setattr("llmkit.machine.memory", lambda: {"available": available})
    model, (prompt,) = make_model("llama"), prompts(6)
    runner, step = CpuRunner(make_policy(model)), make_step([(prompt, 0, [3])])
    monkeypatch.undo()
    runner.allocate(NUM_BLOCKS)
    before = runner.forward(step)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    assert torch.equal(runner.forward(step), before) == is_copied


def test_parameters_that_were_replaced_are_found_again():
    model, (prompt,) = make_model("llama"), prompts(6)
    runner, step = make_runner(model), make_step([(prompt, 0, [3])], range(6))
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.1
    runner.weights_changed()
    torch.testing.assert_close(runner.forward(step), reference_logits(model, prompt), rtol=1e-5, atol=4e-5)


def test_a_copied_block_goes_its_own_way():
    model, (prompt,) = make_model("mistral"), prompts(20)
    runner = make_runner(model)
    runner.forward(make_step([(prompt, 0, [0, 1])], []))
    runner.copy_blocks([1], [6])
    # Both share block 0; the second writes another token at position 20 of its own copy.
    logits = runner.forward(make_step([([7], 20, [0, 1]), ([9], 20, [0, 6])]))
    logits = runner.forward(make_step([([8], 21, [0, 1]), ([8], 21, [0, 6])]))
    for row, token in enumerate((7, 9)):
        wanted = reference_logits(model, [*prompt, token, 8])[-1]
        torch.testing.assert_close(logits[row], wanted, rtol=1e-5, atol=2e-5)


def test_logits_at_any_tokens_in_any_order():
    model, (first, second) = make_model("qwen2"), prompts(9, 12)
    runner = make_runner(model)
    step = make_step([(first, 0, [0]), (second, 0, [1])], [20, 3, 3, 9, 0])
    everything = torch.cat([reference_logits(model, first), reference_logits(model, second)])
    torch.testing.assert_close(runner.forward(step), everything[step.logit_positions], rtol=1e-5, atol=2e-5)
    assert runner.forward(make_step([(first, 0, [0])], [])).shape == (0, VOCAB_SIZE)


def test_tokens_without_logits_are_in_the_cache_all_the_same():
    model, given = make_model("qwen2"), prompts(3, 3, 3)
    runner = make_runner(model)
    for position in range(2):
        step = make_step(
            [(prompt[position : position + 1], position, [s]) for s, prompt in enumerate(given)], [1, 1, 0]
        )
        runner.forward(step)
    logits = runner.forward(make_step([(prompt[2:], 2, [s]) for s, prompt in enumerate(given)]))
    wanted = torch.stack([reference_logits(model, prompt)[-1] for prompt in given])
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_what_a_former_owner_left_in_a_block_does_no_harm(dtype):
    model, (prompt,) = make_model("llama", dtype), prompts(31)
    runner, step = make_runner(model, dtype), make_step([(prompt[:15], 0, [3])])
    clean = runner.forward(step)
    kept = model.model.layers[0].self_attn.v_proj.bias.detach().clone()
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.bias.fill_(float("nan"))
    runner.weights_changed()
    assert runner.forward(make_step([(prompt, 0, [3, 4])])).isnan().all()
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.bias.copy_(kept)
    runner.weights_changed()
    assert torch.equal(runner.forward(step), clean)


def test_a_context_longer_than_the_first_rotary_table():
    model, (prompt,) = make_model("granite"), prompts(1100)
    runner = CpuRunner(make_policy(model))
    runner.allocate(70)
    blocks = list(range(70))
    runner.forward(make_step([(prompt[:1000], 0, blocks)]))
    logits = runner.forward(make_step([(prompt[1000:], 1000, blocks)]))
    torch.testing.assert_close(logits[0], reference_logits(model, prompt)[-1], rtol=1e-5, atol=2e-5)


def test_a_processor_without_avx512_gets_the_same_tokens():
    model, given = make_model("phi3"), prompts(19, 3)
    wanted = [reference_greedy(model, prompt, 8) for prompt in given]
    assert greedy(make_runner(model, architecture="x86-64-v3"), given, 8, chunk=5) == wanted
    half = make_model("llama", BF16)
    step = make_step([(given[0], 0, [1, 2])], range(19))
    narrow, wide = (make_runner(half, BF16, architecture=name).forward(step) for name in ("x86-64-v3", "native"))
    torch.testing.assert_close(narrow, wide, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (([5, VOCAB_SIZE], 0, [1]), f"token id {VOCAB_SIZE} is not in the vocabulary of {VOCAB_SIZE}"),
        (([5], 16, [1]), "position 16 needs 2 blocks, the table has 1"),
        (([5], 0, [NUM_BLOCKS]), f"block {NUM_BLOCKS} is not one of the {NUM_BLOCKS}"),
        (([5], -1, [1]), "position -1 lies outside"),
    ],
)
def test_steps_that_make_no_sense(part, said):
    runner = make_runner(make_model("llama"))
    with pytest.raises(EngineError, match=said):
        runner.forward(make_step([part]))


def test_a_cache_larger_than_the_memory():
    runner = CpuRunner(make_policy(make_model("llama")))
    with pytest.raises(EngineError, match=r"at most \d+ blocks fit"):
        runner.allocate(1 << 30)


def test_bytes_of_a_block():
    # 16 tokens, 3 layers, keys and values of 4 heads with 128 numbers of 2 bytes
    assert CpuRunner(make_policy(make_model("qwen3", BF16), BF16)).bytes_per_block == 16 * 3 * 2 * 4 * 128 * 2


def test_copies_of_blocks_that_are_not_there():
    with pytest.raises(EngineError, match=f"block {NUM_BLOCKS} is not one of"):
        make_runner(make_model("llama")).copy_blocks([0], [NUM_BLOCKS])


def test_closing_twice():
    runner = make_runner(make_model("llama"))
    runner.close()
    runner.close()


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("gpt2", {}, "the architecture is gpt2"),
        ("llama", {"hidden_act": "gelu"}, "the activation is gelu"),
        ("qwen3", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "type dynamic"),
        ("llama", {"head_dim": 514}, "514 dimensions"),
        ("llama", {"intermediate_size": 101}, "60 and 101, not even numbers"),
    ],
)
def test_models_that_are_not_known(family, options, said):
    assert said in str(CpuRunner.why_not(make_policy(make_model(family, **options))))


def test_what_was_put_into_a_model():
    hooked = make_model("llama")
    hooked.model.layers[1].register_forward_hook(lambda *_: None)
    assert "model.layers.1 has forward hooks" in str(CpuRunner.why_not(make_policy(hooked)))
    wrapped = make_model("llama")
    wrapped.model.layers[1].mlp.up_proj = nn.Sequential(wrapped.model.layers[1].mlp.up_proj)
    assert "model.layers.1.mlp.up_proj is a torch.nn" in str(CpuRunner.why_not(make_policy(wrapped)))
    assert "Sequential" in str(CpuRunner.why_not(make_policy(nn.Sequential())))


def test_types_and_devices_that_are_not_known():
    assert "float16" in str(CpuRunner.why_not(make_policy(make_model("llama", torch.float16))))
    mixed = make_model("llama")
    mixed.lm_head.to(BF16)
    assert "several types: bfloat16, float32" in str(CpuRunner.why_not(make_policy(mixed)))
    elsewhere = make_policy(make_model("llama"))
    elsewhere.device = torch.device("meta")
    assert "on meta" in str(CpuRunner.why_not(elsewhere))


def test_without_a_compiler(monkeypatch, tmp_path):
    from llmkit.engines.inference.native.cpu import library

    library.load.cache_clear()
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no C++ compiler" in str(CpuRunner.why_not(make_policy(make_model("llama"))))
    monkeypatch.setenv("CXX", "/bin/false")
    assert "/bin/false does not compile the step" in str(CpuRunner.why_not(make_policy(make_model("llama"))))
    library.load.cache_clear()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_c_compiler_links_the_library_of_cpp_too(monkeypatch):
    from llmkit.engines.inference.native.cpu import library

    library.load.cache_clear()
    monkeypatch.setenv("CXX", "gcc")
    assert CpuRunner.why_not(make_policy(make_model("llama"))) is None
    library.load.cache_clear()
