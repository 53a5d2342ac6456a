"""What every adapter promises: a model that starts as it was, trains what it should, and can be restored."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.adapters.contract import Adapter
from llmkit.testing.front import FrontContract
from llmkit.testing.tiny import tiny_model

if TYPE_CHECKING:
    from torch import Tensor


class AdapterContract(FrontContract):
    """Subclass it and set `name`; override `base_model` for an adapter that needs another one."""

    kind = "adapters"

    def build(self) -> Adapter:
        """The adapter to test."""
        return self.plugin().build(self.config())

    def base_model(self) -> Any:
        """A fresh model; the same weights each time."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(tiny_model()).eval()

    def test_before_training_the_model_says_what_it_said(self) -> None:
        import torch

        before = _logits(self.base_model())
        after = _logits(self.build().attach(self.base_model()))
        torch.testing.assert_close(after, before)

    def test_what_is_marked_trains_and_nothing_else(self) -> None:
        model: Any = self.build().attach(self.base_model())
        _logits(model).logsumexp(dim=-1).sum().backward()
        trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert trainable, "nothing has requires_grad, so nothing would train"
        assert with_gradient == trainable

    def test_a_checkpoint_restores_what_was_trained(self, tmp_path: Path) -> None:
        import torch

        model: Any = self.build().attach(self.base_model())
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.01)
        model.save_pretrained(tmp_path)
        restored: Any = self.build().restore(self.base_model(), tmp_path)
        torch.testing.assert_close(_logits(restored.eval()), _logits(model.eval()), rtol=0, atol=0)
        assert _trainable(restored) == _trainable(model)


def _logits(model: Any) -> "Tensor":
    import torch

    return model(torch.arange(1, 25)[None]).logits


def _trainable(model: Any) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]
