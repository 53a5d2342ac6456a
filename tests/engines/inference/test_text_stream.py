import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llmkit.engines.inference.stop_strings import StopStrings
from llmkit.engines.inference.text_stream import TextStream
from llmkit.types import SamplingParams

TokenizerOf = Callable[[str], PreTrainedTokenizerFast]
quiet = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def whole(tokenizer: PreTrainedTokenizerFast, token_ids: list[int]) -> str:
    text = tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def pieces(stream: TextStream, token_ids: list[int]) -> list[str]:
    return [*(stream.push([token_id]).text for token_id in token_ids), stream.finish()]


@quiet
@given(seed=st.integers(0, 2**32), length=st.integers(0, 60))
def test_pieces_join_to_what_the_tokenizer_decodes(any_tokenizer: PreTrainedTokenizerFast, seed: int, length: int):
    # Ids of no token are among them, as of a model whose vocabulary is padded.
    size = len(any_tokenizer) + 3
    token_ids = random.Random(seed).choices(range(size), k=length)
    assert "".join(pieces(TextStream(any_tokenizer, SamplingParams()), token_ids)) == whole(any_tokenizer, token_ids)


@quiet
@given(text=st.text(alphabet="ab é東😀\n ▁�", max_size=40))
def test_pieces_of_real_text_join_to_it(any_tokenizer: PreTrainedTokenizerFast, text: str):
    token_ids = any_tokenizer.encode(text, add_special_tokens=False)
    assert "".join(pieces(TextStream(any_tokenizer, SamplingParams()), token_ids)) == whole(any_tokenizer, token_ids)


@quiet
@given(seed=st.integers(0, 2**32))
def test_runs_of_bytes_join_to_what_the_tokenizer_decodes(tokenizer_of: TokenizerOf, seed: int):
    # Mostly bytes of characters, now and then one that does not fit: a run with such a byte is lost as a whole.
    rng = random.Random(seed)
    tokenizer = tokenizer_of("llama")
    tokens: list[str] = []
    for _ in range(6):
        tokens += [f"<0x{byte:02X}>" for byte in rng.choice("aé東😀\n").encode()]
        tokens += rng.choice(([], ["<0xFF>"], ["▁the"], ["</s>"]))
    token_ids = tokenizer.convert_tokens_to_ids(tokens)
    assert isinstance(token_ids, list)
    assert "".join(pieces(TextStream(tokenizer, SamplingParams()), token_ids)) == whole(tokenizer, token_ids)


def test_a_character_comes_whole_with_its_last_byte(tokenizer_of: TokenizerOf):
    tokenizer = tokenizer_of("byte_level")
    token_ids = tokenizer.convert_tokens_to_ids(["ð", "Ł", "ĺ", "Ģ"])
    assert isinstance(token_ids, list)
    assert whole(tokenizer, token_ids) == "😀"
    assert pieces(TextStream(tokenizer, SamplingParams()), token_ids) == ["", "", "", "😀", ""]


def test_an_unfinished_character_is_shown_at_the_end(tokenizer_of: TokenizerOf):
    tokenizer = tokenizer_of("byte_level")
    token_ids = tokenizer.convert_tokens_to_ids(["a", "ð", "Ł"])
    assert isinstance(token_ids, list)
    assert pieces(TextStream(tokenizer, SamplingParams()), token_ids) == ["a", "", "", "�"]


def test_special_tokens_are_left_out_and_added_ones_are_text(tokenizer_of: TokenizerOf):
    tokenizer = tokenizer_of("byte_level")
    token_ids = tokenizer.convert_tokens_to_ids(["a", "</s>", "<tool>", "b"])
    assert isinstance(token_ids, list)
    assert "".join(pieces(TextStream(tokenizer, SamplingParams()), token_ids)) == "a<tool>b"


def test_a_stop_string_over_many_tokens_ends_the_text_before_it(any_tokenizer: PreTrainedTokenizerFast):
    token_ids = any_tokenizer.encode("hello world stop the fox", add_special_tokens=False)
    stream = TextStream(any_tokenizer, SamplingParams(stop=("stop",)))
    text = ""
    number = 0
    while stream.stop is None:
        text += stream.push([token_ids[number]]).text
        number += 1
    assert (text, stream.stop, stream.finish()) == ("hello world ", "stop", "")
    # It ended with the token that made the stop string complete, not later.
    assert "stop" in whole(any_tokenizer, token_ids[:number])
    assert "stop" not in whole(any_tokenizer, token_ids[: number - 1])
    assert stream.push(token_ids[:2]) == ("", "stop", 0)


def test_several_tokens_at_once_tell_which_one_ended_the_text(tokenizer_of: TokenizerOf):
    tokenizer = tokenizer_of("byte_level")
    token_ids = tokenizer.convert_tokens_to_ids(["a", "!", "b"])
    assert isinstance(token_ids, list)
    assert TextStream(tokenizer, SamplingParams(stop=("!",))).push(token_ids) == ("a", "!", 2)


def test_a_stop_string_of_byte_tokens_ends_at_once(tokenizer_of: TokenizerOf):
    # Llama 2 has line breaks as bytes only; the text of a run of bytes is open until another token comes.
    tokenizer = tokenizer_of("llama")
    token_ids = tokenizer.convert_tokens_to_ids(["▁the", "<0x0A>", "<0x0A>"])
    assert isinstance(token_ids, list)
    stream = TextStream(tokenizer, SamplingParams(stop=("\n\n",)))
    assert [stream.push([token_id])[:2] for token_id in token_ids] == [("the", None), ("", None), ("", "\n\n")]


def test_stop_strings_do_not_count_among_the_first_tokens(tokenizer_of: TokenizerOf):
    tokenizer = tokenizer_of("byte_level")
    token_ids = tokenizer.convert_tokens_to_ids(["!", "a", "!", "b"])
    assert isinstance(token_ids, list)
    stream = TextStream(tokenizer, SamplingParams(stop=("!",), min_new_tokens=2))
    assert stream.push(token_ids) == ("!a", "!", 3)


def first_stop(text: str, stop: list[str]) -> tuple[str, str | None]:
    """Looks at every beginning of the text."""
    for end in range(1, len(text) + 1):
        matches = [string for string in stop if text[:end].endswith(string)]
        if matches:
            longest = max(matches, key=len)
            return text[: end - len(longest)], longest
    return text, None


@quiet
@given(
    parts=st.lists(st.text(alphabet="abc", max_size=4), max_size=10),
    stop=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=4),
)
def test_stop_strings_do_not_depend_on_how_text_is_cut(parts: list[str], stop: list[str]):
    text = "".join(parts)
    expected, matched = first_stop(text, stop)
    stops = StopStrings(stop)
    shown = ""
    for part in parts:
        shown += stops.push(part)
        # What was shown is never taken back.
        assert expected.startswith(shown)
    assert (shown + stops.finish(), stops.matched) == (expected, matched)


def test_no_more_is_held_back_than_may_be_a_stop_string():
    stops = StopStrings(["STOP", "\n\nHuman:"])
    assert [stops.push(part) for part in ("a S", "TO", "Wn\n", "\nHu", "go", "\n")] == [
        "a ", "", "STOWn", "", "\n\nHugo", "",
    ]  # fmt: skip
    assert stops.finish() == "\n"


@pytest.mark.parametrize("kind", ["byte_level", "llama", "metaspace"])
def test_the_text_of_a_long_completion_is_not_decoded_again_and_again(
    tokenizer_of: TokenizerOf, kind: str, monkeypatch: pytest.MonkeyPatch
):
    tokenizer = tokenizer_of(kind)
    num_decoded = 0
    decode = type(tokenizer).decode

    def counted(self: PreTrainedTokenizerFast, token_ids: list[int], **options: bool) -> object:
        nonlocal num_decoded
        num_decoded += len(token_ids)
        return decode(self, token_ids, **options)

    token_ids = random.Random(0).choices(range(len(tokenizer)), k=2000)
    stream = TextStream(tokenizer, SamplingParams(stop=("never there",)))
    monkeypatch.setattr(type(tokenizer), "decode", counted)
    pieces(stream, token_ids)
    assert num_decoded < 8 * len(token_ids)
