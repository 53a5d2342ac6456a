"""The policy's parameters as the C++ step reads them."""

from typing import Any

import torch
from torch import Tensor

from llmkit.engines.inference.native.cpu.family import LayerParts, Projection, head_dim, layers
from llmkit.engines.inference.native.cpu.structures import Angles, LayerWeights, Shape, Weights

FIRST_POSITIONS = 1024


class SharedWeights:
    """Pointers to a model's weights (`current`) and rotary tables (`angles`), and whatever they point to.

    Matrices are the parameters themselves. Vectors (norms, biases) are small and copied by each `refresh`.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        """Args:
        dtype: of matrix products.
        """
        self._model = model
        self._dtype = dtype
        self._held: list[Tensor] = []
        self._num_copied = 0
        self.current = Weights()
        self.refresh()
        self._cosines, self._sines = self._make_angles(FIRST_POSITIONS)

    @property
    def angles(self) -> Angles:
        """Where the rotary tables are."""
        return Angles(self._cosines.data_ptr(), self._sines.data_ptr(), self.num_positions)

    @property
    def num_positions(self) -> int:
        """Positions that there are rotary angles for."""
        return len(self._cosines)

    @property
    def copied_bytes(self) -> int:
        """What a copy of all matrices takes in the type of products."""
        return self._num_copied * self._dtype.itemsize

    def shape(self, *, is_copied: bool) -> Shape:
        """Sizes and constants, for C++.

        Args:
            is_copied: whether C++ keeps a copy of the matrices.
        """
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
            parameters_are_bf16=model.embed_tokens.weight.dtype == torch.bfloat16,
            keeps_panels=is_copied,
            norm_eps=config.rms_norm_eps,
            attention_scale=model.layers[0].self_attn.scaling,
            embedding_scale=getattr(config, "embedding_multiplier", 1.0),
            residual_scale=getattr(config, "residual_multiplier", 1.0),
            logit_scale=1.0 / getattr(config, "logits_scaling", 1.0),
        )

    def refresh(self) -> None:
        """Read the parameters anew."""
        self._held, self._num_copied = [], 0
        model = self._model.model
        parts = [self._layer(layer) for layer in layers(self._model)]
        head, embedding = self._model.lm_head, model.embed_tokens.weight.detach()
        self._held.append(embedding)
        self.current = Weights(
            layers=(LayerWeights * len(parts))(*parts),
            embedding=embedding.data_ptr(),
            final_norm=self._vector(model.norm.weight),
            head=self._matrix(head.weight.detach()),
            head_bias=None if head.bias is None else self._vector(head.bias, is_rounded=True),
        )

    def reach(self, num_positions: int) -> None:
        """Make rotary angles for at least so many positions."""
        self._cosines, self._sines = self._make_angles(max(num_positions, 2 * self.num_positions))

    def _layer(self, parts: LayerParts) -> LayerWeights:
        weights = LayerWeights(window=parts.window, rotates=parts.rotates)
        for name in ("attention_norm", "query_norm", "key_norm", "mlp_norm"):
            norm: Tensor | None = getattr(parts, name)
            setattr(weights, name, None if norm is None else self._vector(norm))
        for name in ("query", "key", "value", "output", "gate", "up", "down"):
            projection: Projection = getattr(parts, name)
            setattr(weights, name, self._matrix(projection.weight))
            if projection.bias is not None:
                setattr(weights, f"{name}_bias", self._vector(projection.bias, is_rounded=True))
        return weights

    def _matrix(self, matrix: Tensor) -> int:
        self._num_copied += matrix.numel()
        self._held.append(dense := matrix.contiguous())
        return dense.data_ptr()

    def _vector(self, vector: Tensor, *, is_rounded: bool = False) -> int:
        """A copy in float; biases are rounded to the compute type first, as autocast does."""
        values = vector.detach().to(self._dtype) if is_rounded else vector.detach()
        self._held.append(copy := values.to(torch.float32, copy=True).contiguous())
        return copy.data_ptr()

    @torch.no_grad()
    def _make_angles(self, num_positions: int) -> tuple[Tensor, Tensor]:
        """[positions, rotary dimension / 2] cosines and sines of the model's own rotary module, rounded as it does."""
        model = self._model.model
        like = torch.empty(0, dtype=model.embed_tokens.weight.dtype)
        cosines, sines = model.rotary_emb(like, torch.arange(num_positions)[None])
        half = cosines.shape[-1] // 2
        assert torch.equal(cosines[..., :half], cosines[..., half:]), "the rotary embedding does not turn by halves"
        return cosines[0, :, :half].float().contiguous(), sines[0, :, :half].float().contiguous()
