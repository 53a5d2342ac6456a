"""Words that are looked up give the tokenizer's own tokens."""

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llmkit.data.tokenizing import lexicon
from llmkit.data.tokenizing.encoding import TextEncoder
from llmkit.data.tokenizing.lexicon import open_lexicon

# How tokenizers of several families cut text, in the notation of `tokenizers`.
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")
MARKS = QWEN.replace(r"\p{L}+|\p{N}|", r"[\p{L}\p{M}]+|\p{N}|")
CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{Lo}]+(?i:'s|'t)?|[\p{P}\p{S}]+|\p{N}{1,3}|\s+(?!\S)|\s+"
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
CORPUS = ["What is two and two? It's 2024's day-light, isn't it?\n\n  {\"k\": [1, 2.5]}\r\n\tAND  more..."] * 20
SPECIALS = ("<|im_start|>", "<|im_end|>", "<think>", "<a_token_of_more_than_sixteen_characters>")
TEXTS = st.lists(
    st.sampled_from([
        *SPECIALS, "What", "it's", "'S", " ", "  ", "\n", "\r\n", "\t", "\x1c", "\x0b", "\x7f", "1", "2024", ".", "...",
        "AND", "Day", "é", "e\u0301", "🙂", "二", "\xa0", "\u2009", "\x85", "ſ", "’s", "ß", "²", "½",
        "١", "мир", "\u200b", "ǅ", "ʰ", "\u0660", "<|", "{\"k\":", "x" * 20,
    ]),
    max_size=14,
).map("".join)  # fmt: skip


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), BYTES])


KINDS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "qwen": split_by(QWEN),
    "llama3": split_by(LLAMA3),
    "marks": split_by(MARKS),
    "cased": split_by(CASED),
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "several": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
            pre_tokenizers.Split("and", "isolated"),
            pre_tokenizers.Split(Regex(r"\s?\p{L}+|\s+$|[^\s\p{L}]+"), "isolated"),
            BYTES,
        ]
    ),
}


def make(pre_tokenizer: pre_tokenizers.PreTokenizer, **token: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    options = {"special": True, "normalized": False, **token}
    tokenizer.add_special_tokens([AddedToken(text, **options) for text in SPECIALS])
    return tokenizer


@pytest.fixture(scope="module")
def encoder_of() -> Callable[[str], TextEncoder]:
    made: dict[str, TextEncoder] = {}

    def encoder(kind: str) -> TextEncoder:
        if kind not in made:
            made[kind] = TextEncoder(PreTrainedTokenizerFast(tokenizer_object=make(KINDS[kind])))
        return made[kind]

    return encoder


@settings(deadline=None, max_examples=150)
@given(text=TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_their_places_are_the_tokenizers(encoder_of: Callable[[str], TextEncoder], kind: str, text: str):
    encoder = encoder_of(kind)
    assert encoder._lexicon is not None
    expected = encoder._backend.encode(text, add_special_tokens=False)
    encoded = encoder.encode(text)
    assert encoded.token_ids == expected.ids
    assert list(zip(encoded.starts, encoded.ends, strict=True)) == expected.offsets


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(TEXTS, max_size=6))
def test_many_texts_at_once_are_as_one_by_one(encoder_of: Callable[[str], TextEncoder], texts: list[str]):
    encoder = encoder_of("qwen")
    assert encoder.encode_all(texts, [()] * len(texts)) == [encoder.encode(text) for text in texts]


def test_every_character_that_is_known_is_cut_alike(encoder_of: Callable[[str], TextEncoder]):
    characters = [chr(code) for code in range(0x10000) if not unicodedata.category(chr(code)).startswith("C")]
    text = "".join(f"a{one} {one}{one}1{one}'{one}S." for one in characters)
    for kind in ("gpt2", "qwen", "marks", "cased"):
        encoder = encoder_of(kind)
        assert encoder._lexicon is not None
        # One text with all of them would go to the tokenizer as a whole: each line is one piece.
        for start in range(0, len(text), 5000):
            piece = "".join(one for one in text[start : start + 5000] if encoder._lexicon.knows(one))
            assert encoder._lexicon.knows(piece)
            expected = encoder._backend.encode(piece, add_special_tokens=False)
            ids, starts, ends = encoder._lexicon.encode([piece])
            assert ids == expected.ids
            assert list(zip(starts, ends, strict=True)) == expected.offsets


def test_most_of_living_scripts_is_known(encoder_of: Callable[[str], TextEncoder]):
    words = encoder_of("qwen")._lexicon
    assert words is not None
    for text in ("naïve “quotes” — it’s", "Größe", "Привет", "你好，世界", "こんにちは", "한국어", "नमस्ते", "سلام"):
        assert words.knows(text), text
    # An emoji of a later Unicode, a character that Python calls white space, one that equals an s but for its case.
    for text in ("🙂", "\x1c", "ſ"):
        assert not words.knows(text)


def test_it_forgets_when_it_is_full(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lexicon, "MAX_WORDS", 10)
    tokenizer = make(KINDS["qwen"])
    words = open_lexicon(tokenizer)
    assert words is not None
    text = " ".join(f"word{chr(97 + n % 26)}{n}" for n in range(100)) + " " + "y" * 100
    for _ in range(2):
        assert words.encode([text])[0] == tokenizer.encode(text, add_special_tokens=False).ids
        assert len(words._words) <= 10
    assert "y" * 100 not in words._words


def with_model(change: Callable[[Tokenizer], object]) -> Tokenizer:
    tokenizer = make(KINDS["qwen"])
    change(tokenizer)
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        lambda: make(pre_tokenizers.Metaspace()),
        lambda: make(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda: make(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "removed"), BYTES])),
        lambda: make(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated", invert=True), BYTES])),
        lambda: make(split_by(r"[a-z&&[^x]]+|.")),
        lambda: make(KINDS["qwen"], lstrip=True),
        lambda: make(KINDS["qwen"], single_word=True),
        lambda: with_model(lambda tokenizer: setattr(tokenizer.model, "dropout", 0.1)),
        lambda: with_model(lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Lowercase())),
        lambda: with_model(lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Prepend("_"))),
    ],
    ids=["metaspace", "prefix", "removed", "inverted", "intersection", "lstrip", "word", "dropout", "lower", "prepend"],
)
def test_a_tokenizer_that_works_in_another_way_has_none(tokenizer: Callable[[], Tokenizer]):
    assert open_lexicon(tokenizer()) is None


def test_a_normalizer_that_leaves_ascii_as_it_is_does_no_harm():
    tokenizer = with_model(lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.NFC()))
    encoder = TextEncoder(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    assert encoder._lexicon is not None
    for text in ("é<|im_end|>What is 2024é", "e\u0301<|im_end|>What is 2024é"):
        expected = tokenizer.encode(text, add_special_tokens=False)
        encoded = encoder.encode(text)
        assert encoded.token_ids == expected.ids
        assert list(zip(encoded.starts, encoded.ends, strict=True)) == expected.offsets
