"""The policy's parameters as the C++ step reads them: in place where their type allows, otherwise converted."""

from typing import Any

import torch
from torch import Tensor

from llmkit.engines.inference.native.cpu.family import LayerParts, Projection, head_dim, layers
from llmkit.engines.inference.native.cpu.structures import LayerWeights, Shape, Weights

FIRST_POSITIONS = 1024


class SharedWeights:
    """Pointers to a model's weights (`current`), and whatever they point to.

    Matrices of the compute type are the parameters themselves. Of float32 parameters under bfloat16 products there is a
    copy, rounded anew by each `refresh`. Vectors (norms, biases) are small and always copied.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self._model = model
        self._dtype = dtype
        self._rounded: dict[str, Tensor] = {}
        self._held: list[Tensor] = []
        self._stale: list[tuple[Tensor, Tensor]] = []
        self._cosines, self._sines = self._angles(FIRST_POSITIONS)
        self.current = Weights()
        self.refresh()

    @property
    def num_positions(self) -> int:
        """Positions that there are rotary angles for."""
        return len(self._cosines)

    def shape(self) -> Shape:
        """Sizes and constants, for C++."""
        config, model = self._model.config, self._model.model
        return Shape(
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=head_dim(config),
            rotary_dim=2 * self._cosines.shape[1],
            intermediate_size=config.intermediate_size,
            vocab_size=self._model.lm_head.out_features,
            is_bf16=self._dtype == torch.bfloat16,
            embedding_is_bf16=model.embed_tokens.weight.dtype == torch.bfloat16,
            norm_eps=config.rms_norm_eps,
            attention_scale=model.layers[0].self_attn.scaling,
            embedding_scale=getattr(config, "embedding_multiplier", 1.0),
            residual_scale=getattr(config, "residual_multiplier", 1.0),
            logit_scale=1.0 / getattr(config, "logits_scaling", 1.0),
        )

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the parameters anew."""
        self._held, self._stale = [], []
        model = self._model.model
        parts = [self._layer(index, layer) for index, layer in enumerate(layers(self._model))]
        head, embedding = self._model.lm_head, model.embed_tokens.weight.detach()
        self._held.append(embedding)
        self.current = Weights(
            layers=(LayerWeights * len(parts))(*parts),
            embedding=embedding.data_ptr(),
            final_norm=self._vector(model.norm.weight),
            head=self._matrix("head", head.weight.detach()),
            head_bias=None if head.bias is None else self._vector(head.bias, is_rounded=True),
            cosines=self._cosines.data_ptr(),
            sines=self._sines.data_ptr(),
            num_positions=self.num_positions,
        )
        for rounded, matrix in self._stale:
            rounded.copy_(matrix)

    def reach(self, num_positions: int) -> None:
        """Make rotary angles for at least so many positions."""
        self._cosines, self._sines = self._angles(max(num_positions, 2 * self.num_positions))
        self.current.cosines, self.current.sines = self._cosines.data_ptr(), self._sines.data_ptr()
        self.current.num_positions = self.num_positions

    def _layer(self, index: int, parts: LayerParts) -> LayerWeights:
        weights = LayerWeights(window=parts.window, rotates=parts.rotates)
        for name in ("attention_norm", "query_norm", "key_norm", "mlp_norm"):
            norm: Tensor | None = getattr(parts, name)
            setattr(weights, name, None if norm is None else self._vector(norm))
        for name in ("query", "key", "value", "output", "gate", "up", "down"):
            projection: Projection = getattr(parts, name)
            setattr(weights, name, self._matrix(f"{index}.{name}", projection.weight))
            if projection.bias is not None:
                setattr(weights, f"{name}_bias", self._vector(projection.bias, is_rounded=True))
        return weights

    def _matrix(self, name: str, matrix: Tensor) -> int:
        if matrix.dtype == self._dtype:
            self._held.append(dense := matrix.contiguous())
            return dense.data_ptr()
        if name not in self._rounded:
            self._rounded[name] = torch.empty_like(matrix, dtype=self._dtype, memory_format=torch.contiguous_format)
        self._stale.append((self._rounded[name], matrix))
        return self._rounded[name].data_ptr()

    def _vector(self, vector: Tensor, *, is_rounded: bool = False) -> int:
        """A copy in float; biases are rounded to the compute type first, as autocast does."""
        values = vector.detach().to(self._dtype) if is_rounded else vector.detach()
        self._held.append(copy := values.to(torch.float32, copy=True).contiguous())
        return copy.data_ptr()

    @torch.no_grad()
    def _angles(self, num_positions: int) -> tuple[Tensor, Tensor]:
        """[positions, rotary dimension / 2] cosines and sines of the model's own rotary module, rounded as it does."""
        model = self._model.model
        like = torch.empty(0, dtype=model.embed_tokens.weight.dtype)
        cosines, sines = model.rotary_emb(like, torch.arange(num_positions)[None])
        half = cosines.shape[-1] // 2
        assert torch.equal(cosines[..., :half], cosines[..., half:]), "the rotary embedding does not turn by halves"
        return cosines[0, :, :half].float().contiguous(), sines[0, :, :half].float().contiguous()
