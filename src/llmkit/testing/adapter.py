"""What every adapter promises: it trains what it should and nothing else, its facts hold, and it can be restored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llmkit.adapters.contract import Adapter, AdapterContext
from llmkit.errors import ConfigError
from llmkit.testing.front import FrontContract
from llmkit.testing.tiny import tiny_model

LENGTHS = (7, 24, 17)
"""Tokens of the sequences that adapters are tested on."""


class AdapterContract(FrontContract):
    """Subclass it and set `name`; override `base_model` for an adapter that needs another one.

    Attributes:
        num_steps: steps that it trains for.
        learning_rate: with which the loss falls in that many steps.
        tolerance: by which logits may differ after merging; the update is computed in another order.
    """

    kind = "adapters"
    num_steps: ClassVar[int] = 6
    learning_rate: ClassVar[float] = 1e-2
    tolerance: ClassVar[float] = 1e-5

    def build(self) -> Adapter:
        """The adapter to test, as a run begins it."""
        adapter = self.plugin().build(self.config())
        adapter.begin(self.context())
        return adapter

    def context(self) -> AdapterContext:
        """What the run tells it."""
        return AdapterContext(base_model="org/base", total_steps=self.num_steps, draw_batches=self.batches)

    def base_model(self) -> Any:
        """A fresh model; the same weights each time."""
        from llmkit.config.schema import ModelConfig
        from llmkit.models.loading import load_model

        return load_model(ModelConfig(path=tiny_model()))

    def batches(self, count: int) -> Sequence[Any]:
        """Batches of random tokens, each a repetition that can be learnt."""
        import torch

        from llmkit.data.collate import collate
        from llmkit.types import Sample, Source

        generator = torch.Generator().manual_seed(0)
        batches = []
        for _ in range(count):
            samples = []
            for length in LENGTHS:
                token_ids = torch.randint(1, 250, (length,), generator=generator).tolist()
                samples.append(Sample(token_ids, [1.0] * length, Source("random", 1)))
            batches.append(collate(samples))
        return batches

    def attached(self) -> tuple[Adapter, Any]:
        """The adapter and a fresh model that has it; the same each time."""
        import torch

        adapter = self.build()
        model = self.base_model()
        torch.manual_seed(1)
        return adapter, adapter.attach(model)

    def trained(self) -> tuple[Adapter, Any]:
        """The same after some steps."""
        adapter, model = self.attached()
        self.train(adapter, model, range(1, self.num_steps + 1))
        return adapter, model.eval()

    def train(self, adapter: Adapter, model: Any, steps: range, optimizer: Any = None) -> list[float]:
        """Train for some steps; returns the losses."""
        import torch

        from llmkit.models.logprobs import token_logprobs

        model.train()
        (batch,) = self.batches(1)
        optimizer = optimizer or self.optimizer(model)
        losses = []
        for step in steps:
            torch.manual_seed(step)  # as a resumed run does, which restores the generator
            loss = -token_logprobs(model, batch)[0].mean()
            loss.backward()
            losses.append(loss.item())
            adapter.before_update(model)
            optimizer.step()
            adapter.after_update(model, step)
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            losses.append(-token_logprobs(model, batch)[0].mean().item())
        return losses

    def optimizer(self, model: Any) -> Any:
        """An optimizer of what trains."""
        import torch

        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trainable, lr=self.learning_rate, weight_decay=0.0)

    def logits(self, model: Any) -> Any:
        """[T, V] logits of a packed batch; no gradient."""
        import torch

        from llmkit.models.packed import packed_logits

        (batch,) = self.batches(1)
        with torch.no_grad():
            return packed_logits(model, batch, torch.arange(len(batch.token_ids)))

    def test_it_is_an_adapter(self) -> None:
        assert isinstance(self.build(), Adapter), "derive it from llmkit.adapters.contract.Adapter"

    def test_before_training_the_model_says_what_it_said(self) -> None:
        import torch

        adapter, model = self.attached()
        same = torch.allclose(self.logits(model.eval()), self.logits(self.base_model()), rtol=0, atol=self.tolerance)
        assert same == adapter.facts.no_op_at_start

    def test_packed_sequences_do_not_see_one_another(self) -> None:
        import torch

        from llmkit.data.collate import collate
        from llmkit.models.packed import packed_logits
        from llmkit.types import Sample, Source

        _, model = self.trained()
        (batch,) = self.batches(1)
        start, alone = 0, []
        for end in batch.sequence_ends:
            token_ids = batch.token_ids[start:end].tolist()
            single = collate([Sample(token_ids, [1.0] * len(token_ids), Source("alone", 1))])
            with torch.no_grad():
                alone.append(packed_logits(model, single, torch.arange(end - start)))
            start = end
        torch.testing.assert_close(self.logits(model), torch.cat(alone), rtol=0, atol=self.tolerance)

    def test_what_is_marked_trains_and_nothing_else(self) -> None:
        import torch

        adapter, model = self.attached()
        trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trainable, "nothing has requires_grad, so nothing would train"
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        losses = self.train(adapter, model, range(1, self.num_steps + 1))
        assert losses[-1] < losses[0]
        changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert changed, "no step has changed anything"
        assert changed <= trainable

    def test_a_base_that_is_kept_is_there_when_the_adapter_is_off(self) -> None:
        import torch

        adapter, model = self.trained()
        if not adapter.facts.keeps_base:
            return
        with model.disable_adapter():
            off = self.logits(model)
        assert torch.equal(off, self.logits(self.base_model()))

    def test_a_checkpoint_restores_what_was_trained(self, tmp_path: Path) -> None:
        import torch

        adapter, model = self.trained()
        adapter.save(model, tmp_path)
        restored: Any = self.build().restore(self.base_model(), tmp_path)
        torch.testing.assert_close(self.logits(restored.eval()), self.logits(model), rtol=0, atol=0)
        assert _trainable(restored) == _trainable(model)

    def test_a_restored_adapter_trains_on_as_if_it_had_not_stopped(self, tmp_path: Path) -> None:
        whole, model = self.attached()
        losses = self.train(whole, model, range(1, self.num_steps + 1))
        half = (self.num_steps + 1) // 2
        first, model = self.attached()
        optimizer = self.optimizer(model)
        self.train(first, model, range(1, half + 1), optimizer)
        first.save(model, tmp_path)
        second = self.build()
        restored = second.restore(self.base_model(), tmp_path)
        further = self.optimizer(restored)
        further.load_state_dict(optimizer.state_dict())
        assert self.train(second, restored, range(half + 1, self.num_steps + 1), further) == losses[half:]

    def test_merging_keeps_what_was_learnt_or_is_refused(self) -> None:
        import torch

        adapter, model = self.trained()
        if adapter.facts.not_mergeable:
            with pytest.raises(ConfigError, match="cannot be merged"):
                adapter.merge(model)
            return
        before = self.logits(model)
        merged = adapter.merge(model)
        torch.testing.assert_close(self.logits(merged), before, rtol=0, atol=self.tolerance)
        assert not hasattr(merged, "peft_config")

    def test_as_a_plain_lora_it_says_the_same_or_it_is_refused(self, tmp_path: Path) -> None:
        import torch

        from llmkit.adapters.adapter_files import read_config, read_weights
        from llmkit.adapters.wrapping import load_state, wrap

        adapter, model = self.trained()
        if not adapter.facts.convertible_to_lora:
            with pytest.raises(ConfigError, match="LoRA"):
                adapter.save_as_lora(model, tmp_path)
            return
        adapter.save_as_lora(model, tmp_path)
        config = read_config(tmp_path)
        assert config.peft_type == "LORA"
        plain = wrap(self.base_model(), config, "lora").eval()
        load_state(plain, read_weights(tmp_path), tmp_path)
        # Singular values are exact to about a ten-thousandth of the largest one.
        torch.testing.assert_close(self.logits(plain), self.logits(model), rtol=0, atol=100 * self.tolerance)

    def test_its_size_is_known_from_shapes_alone(self) -> None:
        import torch

        adapter, model = self.attached()
        if not adapter.facts.sized_by_shapes:
            return
        shapes = self.base_model().to("meta")
        shapes.tie_weights()  # moving has made two of what was shared
        with torch.device("meta"):
            sized = self.build().attach(shapes)
        assert _count_trainable(sized) == _count_trainable(model)


def _count_trainable(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _trainable(model: Any) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]
