"""A model's tokenizer and chat template as llama.cpp wants them: the pieces, their kinds, and how text is cut."""

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from transformers import PreTrainedTokenizerBase

from llmkit.errors import ConfigError

SHARED = r"'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CUTS = {
    f"(?i:{SHARED}\\p{{N}}{{1,3}}{REST}": "llama-bpe",
    f"(?i:{SHARED}\\p{{N}}{REST}": "qwen2",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}
"""llama.cpp's names of how text is cut into words before pieces are merged, by the expression that cuts."""
SPACE = "▁"
NEVER = "\u0100 \u0100"
"""A merge of two zero bytes whose result is no piece, so that it does nothing."""


class Kind(IntEnum):
    """Of a piece, as llama.cpp numbers them."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """What the file says of the tokenizer.

    Attributes:
        model: `gpt2` for merges of bytes, `llama` for SentencePiece's of characters.
        pieces: by their number.
        kinds: of each.
        cut: how text is cut into words; None where it is not.
        merges: pairs in their order, for `gpt2`.
        scores: of each piece, the higher the sooner merged, for `llama`.
        space_before: whether text gets a space at its start; None where the model has no such thing.
    """

    model: str
    pieces: list[str]
    kinds: list[Kind]
    cut: str | None = None
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    space_before: bool | None = None


def read_vocabulary(tokenizer: PreTrainedTokenizerBase, num_rows: int) -> Vocabulary:
    """The pieces of a tokenizer.

    Args:
        tokenizer: with the backend of the package tokenizers.
        num_rows: of the embedding; those without a token become unused pieces.

    Raises:
        ConfigError: it is of a kind that llama.cpp does not have, or has more tokens than rows.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError("--to gguf: the tokenizer has no tokenizer.json and none can be made from it")
    state = json.loads(backend.to_str())
    model = state["model"]
    if model["type"] != "BPE":
        raise ConfigError(f"--to gguf: a tokenizer of type {model['type']} cannot be written so; BPE can")
    by_bytes = not model.get("byte_fallback")
    pieces, kinds = _pieces(state, num_rows, by_bytes=by_bytes)
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    if by_bytes:
        # llama.cpp wants one merge at least.
        return Vocabulary("gpt2", pieces, kinds, _cut(state, has_merges=bool(merges)), merges or (NEVER,))
    return Vocabulary(
        "llama", pieces, kinds, "default", (), _scores(pieces, model["merges"]), _starts_with_space(state)
    )


def add_vocabulary(writer: Any, vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerBase) -> None:
    """Say it, with special tokens and chat template."""
    writer.add_tokenizer_model(vocabulary.model)
    if vocabulary.cut is not None:
        writer.add_tokenizer_pre(vocabulary.cut)
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_types([int(kind) for kind in vocabulary.kinds])
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.space_before is not None:
        writer.add_add_space_prefix(vocabulary.space_before)
    for name in ("bos", "eos", "unk", "pad"):
        token = getattr(tokenizer, f"{name}_token_id")
        if token is not None:
            getattr(writer, f"add_{name}_token_id")(token)
    # What it does to a text says more than its settings, which kinds of tokenizers heed or do not.
    ids: Any = tokenizer("a").input_ids
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(tokenizer.eos_token_id is not None and ids[-1] == tokenizer.eos_token_id)
    if tokenizer.chat_template:
        template = tokenizer.chat_template
        named = [{"name": name, "template": text} for name, text in template.items()] if isinstance(
            template, dict
        ) else template  # fmt: skip
        writer.add_chat_template(named)


def _pieces(state: dict[str, Any], num_rows: int, *, by_bytes: bool) -> tuple[list[str], list[Kind]]:
    model = state["model"]
    tokens: dict[int, tuple[str, Kind]] = {}
    for piece, number in model["vocab"].items():
        is_byte = not by_bytes and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
        kind = Kind.BYTE if is_byte else Kind.UNKNOWN if piece == model.get("unk_token") else Kind.NORMAL
        tokens[number] = (piece, kind)
    for added in state["added_tokens"]:
        known = tokens.get(added["id"])
        if known is None or known[1] is Kind.NORMAL:
            tokens[added["id"]] = (added["content"], Kind.CONTROL if added["special"] else Kind.USER_DEFINED)
    if (largest := max(tokens)) >= num_rows:
        raise ConfigError(
            f"--to gguf: the tokenizer has token {largest} ({tokens[largest][0]!r}), and the embedding has {num_rows} "
            f"rows; give it more with --vocab-size {largest + 1}"
        )
    full = [tokens.get(number, (f"[PAD{number}]", Kind.UNUSED)) for number in range(num_rows)]
    return [piece for piece, _ in full], [kind for _, kind in full]


def _scores(pieces: list[str], merges: list[Any]) -> tuple[float, ...]:
    """SentencePiece numbers its pieces in the order in which they merge, and so are the merges here."""
    ranks: dict[str, float] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), -float(rank))
    lowest = -float(len(merges))
    return tuple(ranks.get(piece, lowest) for piece in pieces)


def _cut(state: dict[str, Any], *, has_merges: bool) -> str:
    cutters = _flat(state.get("pre_tokenizer"), "pretokenizers")
    expressions = [
        cutter["pattern"].get("Regex", "")
        for cutter in cutters
        if cutter["type"] == "Split" and cutter["behavior"] == "Isolated" and not cutter["invert"]
    ]
    kinds = [cutter["type"] for cutter in cutters]
    if kinds == ["Split", "ByteLevel"] and expressions and expressions[0] in CUTS:
        return CUTS[expressions[0]]
    if kinds == ["ByteLevel"] and cutters[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and cutters[0]["individual_digits"] and cutters[1].get("use_regex", True):
        return "smollm"
    if kinds == ["ByteLevel"] and not has_merges:
        return "gpt-2"  # where no pieces merge, every way to cut gives the same tokens
    raise ConfigError(
        f"--to gguf: llmkit does not know llama.cpp's name for how this tokenizer cuts text ({', '.join(kinds)}; "
        f"{(expressions or ['no expression'])[0]}), and another would give other tokens"
    )


def _starts_with_space(state: dict[str, Any]) -> bool:
    """Whether `a` becomes `▁a`."""
    normalizers = _flat(state.get("normalizer"), "normalizers")
    cutters = _flat(state.get("pre_tokenizer"), "pretokenizers")
    prepended = any(one["type"] == "Prepend" and one["prepend"] == SPACE for one in normalizers)
    return prepended or any(
        one["type"] == "Metaspace" and one.get("prepend_scheme", "always") != "never" for one in cutters
    )


def _flat(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return [part for one in step[key] for part in _flat(one, key)] if step["type"] == "Sequence" else [step]
