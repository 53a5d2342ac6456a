"""Which type each tensor gets: the mixtures that llama.cpp makes for the same names."""

from collections.abc import Mapping
from dataclasses import dataclass

from llmkit.convert.tensor_files import TensorShape

RECIPES: Mapping[str, str] = {
    "f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0", "q4_1": "Q4_1", "q5_0": "Q5_0",
    "q5_1": "Q5_1", "q4_k_s": "Q4_K", "q4_k_m": "Q4_K", "q5_k_s": "Q5_K", "q5_k_m": "Q5_K", "q6_k": "Q6_K",
}  # fmt: skip
"""For each name of a mixture the type of most tensors."""
BLOCKS: Mapping[str, int] = {
    "F32": 1, "F16": 1, "BF16": 1, "Q8_0": 32, "Q4_0": 32, "Q4_1": 32, "Q5_0": 32, "Q5_1": 32, "Q4_K": 256,
    "Q5_K": 256, "Q6_K": 256,
}  # fmt: skip
"""Numbers of a row that are written together."""
FALLBACKS: Mapping[str, str] = {
    "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "Q8_0": "F16", "Q4_0": "F16", "Q4_1": "F16", "Q5_0": "F16",
    "Q5_1": "F16",
}  # fmt: skip
"""For rows that are no multiple of a type's block, the type that is taken."""
WHOLE = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Recipe:
    """A mixture for one model.

    Attributes:
        name: one of `RECIPES`.
        num_layers: of the model.
        is_tied: the embedding is also the output head.
    """

    name: str
    num_layers: int
    is_tied: bool

    def type_of(self, tensor: str, entry: TensorShape) -> str:
        """The type of a tensor under the format's name; vectors keep 32 bits."""
        if len(entry.shape) == 1:
            return "F32"
        kind = self._wanted(tensor)
        while entry.shape[-1] % BLOCKS[kind]:
            kind = FALLBACKS[kind]
        return kind

    def _wanted(self, tensor: str) -> str:
        usual = RECIPES[self.name]
        if usual in WHOLE or usual == "Q8_0":
            return usual
        if tensor == ("token_embd.weight" if self.is_tied else "output.weight"):
            return "Q6_K"
        if not tensor.startswith("blk."):
            return usual
        layer = int(tensor.split(".")[1])
        is_value, is_down = ".attn_v." in tensor, ".ffn_down." in tensor
        if self.name in ("q4_k_m", "q5_k_m") and (is_value or is_down):
            return "Q6_K" if self._matters(layer) else usual
        if self.name == "q4_k_s" and ((is_value and layer < 4) or (is_down and layer < self.num_layers // 8)):
            return "Q5_K"
        return usual

    def _matters(self, layer: int) -> bool:
        """The first and last eighth of the layers, and every third between."""
        eighth = self.num_layers // 8
        return layer < eighth or layer >= self.num_layers - eighth or (layer - eighth) % 3 == 2
