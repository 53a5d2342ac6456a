"""What every plugin that makes a model promises: a directory in the Hugging Face layout."""

from pathlib import Path

from llmkit.testing.front import FrontContract


class ModelContract(FrontContract):
    """Subclass it and set `name`; `builtin:NAME` as `model.path` means this model."""

    kind = "models"

    def build(self) -> Path:
        """Directory of the model, made if need be."""
        return Path(self.plugin().build(self.config()))

    def test_it_makes_a_model_that_transformers_loads(self) -> None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(self.build())
        assert sum(parameter.numel() for parameter in model.parameters()) > 0

    def test_its_tokenizer_has_a_chat_template(self) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.build())
        assert tokenizer.chat_template, "training and chatting need a chat template beside the tokenizer"

    def test_asked_again_it_is_the_same(self) -> None:
        first, second = self.build(), self.build()
        assert _files(first) == _files(second)


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}
