"""Images, videos and audio in columns, and the places in the text where they go."""

from pathlib import Path
from typing import Any

import pytest

from llmkit.data.formatters import alpaca, messages, sharegpt
from llmkit.errors import DataError
from llmkit.testing.samples import row
from llmkit.types import Message, Part

SHAREGPT = sharegpt.build(sharegpt.Config())
MESSAGES = messages.build(messages.Config())
ALPACA = alpaca.build(alpaca.Config())


def human(value: str) -> list[dict[str, Any]]:
    return [{"from": "human", "value": value}]


def test_places_in_the_text_are_filled_in_order():
    record = SHAREGPT.to_record(
        row({"conversations": human("<image>One <video>two<image>"), "images": ["/a", "/b"], "videos": "/c"})
    )
    (message,) = record.messages
    assert message.content == (
        Part("image", url="/a"),
        Part(text="One "),
        Part("video", url="/c"),
        Part(text="two"),
        Part("image", url="/b"),
    )
    assert message.text == "One two"
    assert SHAREGPT.from_record(record) == {
        "conversations": human("<image>One <video>two<image>"),
        "images": ["/a", "/b"],
        "videos": ["/c"],
    }


def test_parts_without_a_url_are_filled_from_the_column():
    content = [{"type": "image"}, {"type": "text", "text": "and <image>"}, {"type": "image_url", "image_url": "/own"}]
    record = MESSAGES.to_record(row({"messages": [{"role": "user", "content": content}], "images": ["/a", "/b"]}))
    assert [part.url for part in record.messages[0].media] == ["/a", "/b", "/own"]


def test_history_and_question_share_the_column():
    record = ALPACA.to_record(
        row({"instruction": "<audio>?", "output": "o", "history": [["<audio>", "a"]], "audios": '["/1", "/2"]'})
    )
    assert [message.media for message in record.messages[::2]] == [
        (Part("audio", url="/1"),),
        (Part("audio", url="/2"),),
    ]


@pytest.mark.parametrize("images", [["/a"], ["/a", "/b", "/c"], []])
def test_as_many_media_as_places(error_of: Any, images: list[str]):
    message = error_of(SHAREGPT, {"conversations": human("<image><image>"), "images": images})
    assert message.startswith(
        f"{len(images)} in 'images', but 2 places for them in the messages (<image>, or a part of"
    )


@pytest.mark.parametrize("values", [{}, {"images": None}, {"images": float("nan")}])
def test_without_a_column_the_word_is_text(values: dict):
    record = SHAREGPT.to_record(row({"conversations": human("the <video> tag, <image>"), **values}))
    assert record.messages == (Message("user", "the <video> tag, <image>"),)
    assert SHAREGPT.to_record(row(SHAREGPT.from_record(record))) == record


def test_paths_begin_at_the_file(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.touch()
    urls = ["img/a.png", "/abs/b.png", "https://example.org/c.png", "data:image/png;base64,AA=="]
    values = {"conversations": human("<image>" * 4), "images": urls}
    (message,) = SHAREGPT.to_record(row(values, path=str(file))).messages
    assert [part.url for part in message.media] == [str(tmp_path / "img/a.png"), *urls[1:]]
    (message,) = SHAREGPT.to_record(row(values, path="hub/name[train]")).messages
    assert [part.url for part in message.media] == urls


def test_images_inside_a_table():
    images = [{"bytes": b"\x89PNG\r\n", "path": "a.png"}, {"bytes": None, "path": "/b.png"}]
    (message,) = SHAREGPT.to_record(row({"conversations": human("<image><image>"), "images": images})).messages
    assert [part.url for part in message.media] == ["data:image/png;base64,iVBORw0K", "/b.png"]


def test_a_word_that_would_be_taken_for_a_place_is_refused():
    part = {"type": "image_url", "image_url": {"url": "/a"}}
    record = MESSAGES.to_record(row({"messages": [{"role": "user", "content": [part, "the tag <image>"]}]}))
    for formatter, name in ((SHAREGPT, "sharegpt"), (ALPACA, "alpaca")):
        with pytest.raises(DataError, match=f"rows.jsonl:1: '{name}' marks the place of a medium with <image>"):
            formatter.from_record(record)
    open_place = MESSAGES.to_record(row({"messages": [{"role": "user", "content": [{"type": "image"}]}]}))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: 'sharegpt' cannot hold a medium .image. without its URL"):
        SHAREGPT.from_record(open_place)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": 3}, "images must be a list of paths or URLs, this is a number"),
        ({"images": [3]}, "images[0] must be a path or a URL, this is a number"),
        ({"images": [""]}, "images[0] must be a path or a URL, this is empty"),
        ({"images": "[1, 2"}, "images must be a list of paths or URLs, this is text (not valid JSON at character"),
        ({"image": "/a"}, "the row has 'image'; read it with --set formatter.images_column=image, or rename it"),
    ],
)
def test_bad_media_are_named(error_of: Any, values: dict, message: str):
    assert error_of(SHAREGPT, {"conversations": human("<image>"), **values}).startswith(message)
