"""Each token knows its message."""

from typing import Any

import pytest

from llmkit.config.schema import DataConfig, PromptDataConfig, SFTDataConfig
from llmkit.data.codec import TextCodec
from llmkit.data.encoders import PairEncoder, PromptEncoder, SampleEncoder
from llmkit.data.inspecting.labelling import TEMPLATE, UNKNOWN, Labeller, Window, left_out, windows
from llmkit.data.inspecting.measuring import RoleCounts, count_roles
from llmkit.types import Message, Part, Record, Source

SOURCE = Source("rows.jsonl", 1)
# <|im_start|>user\n is 6 tokens, Hi 2, <|im_end|> 1, \n 1; <|im_start|>assistant\n is 11.
QUESTION = Message("user", "Hi")
ANSWER = Message("assistant", "Hey")
USER = [0] * 6 + [1] * 3 + [0]


def labelled(codec: TextCodec, record: Record, encoder: Any) -> list[Window]:
    labeller = Labeller(codec, special_tokens_in_text=False, for_prompts=isinstance(encoder, PromptEncoder))
    (encoded,) = encoder([record])
    return windows(labeller([record])[0], encoded, encoder.config)


def test_every_message_has_its_tokens_through_its_end(codec: TextCodec):
    (window,) = labelled(codec, Record((QUESTION, ANSWER), SOURCE), SampleEncoder(codec, SFTDataConfig()))
    assert window.messages == USER + [0] * 11 + [2] * 4 + [0]
    assert window.roles[6] == "user"
    assert window.roles[21] == "assistant"
    assert window.roles[0] == TEMPLATE
    assert codec.decode(
        [token for token, message in zip(window.sample.token_ids, window.messages, strict=True) if message == 2]
    ) == ("Hey<|im_end|>")


def test_weights_of_messages_and_parts_do_not_disturb_it(codec: TextCodec):
    parts = Message("assistant", (Part(text="He", weight=0.25), Part(text="y")), weight=0.0)
    plain = labelled(codec, Record((QUESTION, ANSWER), SOURCE), SampleEncoder(codec, SFTDataConfig()))
    weighted = labelled(
        codec, Record((QUESTION, parts, QUESTION, ANSWER), SOURCE), SampleEncoder(codec, SFTDataConfig())
    )
    assert weighted[0].messages[: len(plain[0].messages)] == plain[0].messages


def test_a_cut_sample_knows_how_much_is_missing_and_where(codec: TextCodec):
    record = Record((QUESTION, ANSWER), SOURCE)
    right = SampleEncoder(codec, SFTDataConfig(max_length=23, overlength="truncate_right"))
    (window,) = labelled(codec, record, right)
    assert (window.num_cut_before, window.num_cut_after) == (0, 26 - 23)
    assert window.messages == USER + [0] * 11 + [2] * 2


def test_a_sample_without_its_start_is_found_at_the_end(codec: TextCodec):
    record = Record((QUESTION, ANSWER), SOURCE)
    left = SampleEncoder(codec, SFTDataConfig(max_length=6, overlength="truncate_left"))
    (window,) = labelled(codec, record, left)
    assert (window.num_cut_before, window.num_cut_after) == (20, 0)
    assert window.messages == [0, 2, 2, 2, 2, 0]


def test_the_windows_of_a_split_row_follow_one_another(codec: TextCodec):
    record = Record((QUESTION, Message("assistant", "abcdefghijklmno")), SOURCE)
    found = labelled(codec, record, SampleEncoder(codec, SFTDataConfig(max_length=20, overlength="split")))
    # 21 tokens before the answer: the first window trains nothing, and what is left out is no window.
    assert [window.start for window in found] == [20]
    assert found[0].messages == [0] + [2] * 16 + [0]


def test_both_sides_of_a_pair_name_their_answers(codec: TextCodec):
    record = Record((QUESTION,), SOURCE, chosen=(ANSWER,), rejected=(Message("assistant", "No"),))
    found = labelled(codec, record, PairEncoder(codec, DataConfig()))
    assert [window.whole.name for window in found] == ["chosen", "rejected"]
    assert count_roles(found) == {
        TEMPLATE: RoleCounts(0, 19 + 19, 0),
        "user": RoleCounts(2, 3 + 3, 0),
        "chosen": RoleCounts(1, 4, 4),
        "rejected": RoleCounts(1, 3, 3),
    }


def test_a_prompt_ends_with_what_makes_the_model_answer(codec: TextCodec):
    record = Record((QUESTION, ANSWER), SOURCE, answer="Hey")
    (window,) = labelled(codec, record, PromptEncoder(codec, PromptDataConfig(), 8))
    assert window.sample.token_ids == codec.prompt_ids([QUESTION])
    assert window.messages == USER + [0] * 11
    assert not any(window.sample.loss_weights)


def test_plain_text_is_one_role(codec: TextCodec):
    record = Record((), SOURCE, text="abc")
    (window,) = labelled(codec, record, SampleEncoder(codec, SFTDataConfig()))
    assert set(window.roles) == {"text"}


def test_messages_that_cannot_be_followed_are_not_told_apart(codec: TextCodec):
    counting = TextCodec(
        codec.tokenizer,
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content | length }}{% else %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% endif %}{% endfor %}",
    )
    (window,) = labelled(counting, Record((QUESTION, ANSWER), SOURCE), SampleEncoder(counting, SFTDataConfig()))
    assert window.sample.loss_weights == [0, 1, 1, 1, 1]
    assert window.start is None
    assert set(window.roles) == {UNKNOWN}
    assert "template" in window.whole.fault


def test_a_row_that_is_left_out_still_shows_its_tokens(codec: TextCodec):
    record = Record((QUESTION, ANSWER), SOURCE)
    labeller = Labeller(codec, special_tokens_in_text=False, for_prompts=False)
    (window,) = left_out(labeller([record])[0], record)
    assert window.sample.token_ids == codec.conversation_ids(record.messages)
    assert not any(window.sample.loss_weights)


@pytest.mark.parametrize("turns", [2, 3, 7])
def test_many_messages_keep_their_numbers(codec: TextCodec, turns: int):
    record = Record((QUESTION, ANSWER) * turns, SOURCE)
    (window,) = labelled(codec, record, SampleEncoder(codec, SFTDataConfig()))
    assert [number for number in dict.fromkeys(window.messages) if number] == list(range(1, 2 * turns + 1))
    counts = count_roles([window])
    assert counts["user"] == RoleCounts(turns, 3 * turns, 0)
    assert counts["assistant"] == RoleCounts(turns, 4 * turns, 4 * turns)
