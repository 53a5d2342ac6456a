"""What goes over to C++: the structures of `kernels/model.h`, field by field."""

from ctypes import POINTER, Structure, c_float, c_int32, c_void_p
from typing import ClassVar


class Shape(Structure):
    """Sizes and constants of a model."""

    _fields_: ClassVar = [
        *((name, c_int32) for name in (
            "num_layers", "hidden_size", "num_heads", "num_kv_heads", "head_dim", "rotary_dim", "intermediate_size",
            "vocab_size", "is_bf16", "parameters_are_bf16", "keeps_panels",
        )),
        *((name, c_float) for name in (
            "norm_eps", "attention_scale", "embedding_scale", "residual_scale", "logit_scale",
        )),
    ]  # fmt: skip


class LayerWeights(Structure):
    """Where the weights of a layer lie; null where the layer has none of the kind."""

    _fields_: ClassVar = [
        *((name, c_void_p) for name in (
            "attention_norm", "query", "key", "value", "query_bias", "key_bias", "value_bias", "query_norm", "key_norm",
            "output", "output_bias", "mlp_norm", "gate", "up", "gate_bias", "up_bias", "down", "down_bias",
        )),
        ("window", c_int32),
        ("rotates", c_int32),
    ]  # fmt: skip


class Weights(Structure):
    """Where all weights lie."""

    _fields_: ClassVar = [
        ("layers", POINTER(LayerWeights)),
        *((name, c_void_p) for name in ("embedding", "final_norm", "head", "head_bias")),
    ]


class Angles(Structure):
    """Where the tables of rotary embeddings lie."""

    _fields_: ClassVar = [("cosines", c_void_p), ("sines", c_void_p), ("num_positions", c_int32)]


class LowRank(Structure):
    """What an adapter adds to a product; rank 0 is nothing."""

    _fields_: ClassVar = [("down", c_void_p), ("up", c_void_p), ("rank", c_int32)]


class LayerAdapter(Structure):
    """What an adapter adds in a layer."""

    _fields_: ClassVar = [(name, LowRank) for name in ("query", "key", "value", "output", "gate", "up", "down")]


class StepView(Structure):
    """Where a step's tensors lie, and how large they are."""

    _fields_: ClassVar = [
        *((name, c_void_p) for name in (
            "token_ids", "positions", "logit_positions", "query_starts", "block_tables", "adapters",
        )),
        *((name, c_int32) for name in ("num_tokens", "num_sequences", "num_logits", "table_width")),
        ("logits", c_void_p),
    ]  # fmt: skip


class DrawsView(Structure):
    """Where the rows to draw from lie, and where what is drawn goes."""

    _fields_: ClassVar = [
        *((name, c_void_p) for name in (
            "logits", "rows", "temperatures", "uniforms", "token_ids", "logprobs",
        )),
        *((name, c_int32) for name in ("num_rows", "num_drawable", "wants_logprobs")),
    ]  # fmt: skip
