"""What a message says: text, or a list of parts."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from llmkit.data.formatters.columns import Place
from llmkit.data.formatters.media import locate
from llmkit.data.formatters.weights import WEIGHT_KEYS, weight_of
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Part

Medium = Literal["image", "audio", "video"]
TEXT_TYPES = ("text", "input_text", "output_text", "refusal")
MEDIA_TYPES: Mapping[str, Medium] = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
    "video": "video",
    "video_url": "video",
    "input_video": "video",
}
"""Every spelling of a part's type that is a medium."""


def as_content(value: Any, place: Place) -> str | tuple[Part, ...]:
    """Text as it is; a list as parts, or as text when it holds nothing but text without weights.

    Raises:
        DataError: it is neither, or a part is of a type that is not known.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return joined([_part(part, place.at(index)) for index, part in enumerate(value)])
    raise DataError(f"{place} is {kind_of(value)}; it must be text or a list of parts")


def joined(parts: Sequence[Part]) -> str | tuple[Part, ...]:
    """Parts with texts that follow each other made one, and as text where that says it all.

    Texts with a weight of their own stay apart.
    """
    pieces: list[Part] = []
    for part in parts:
        is_plain = part.type == "text" and part.weight is None
        if is_plain and pieces and pieces[-1].type == "text" and pieces[-1].weight is None:
            pieces[-1] = Part(text=pieces[-1].text + part.text)
        elif not is_plain or part.text:
            pieces.append(part)
    if not pieces:
        return ""
    only = pieces[0]
    return only.text if len(pieces) == 1 and only.type == "text" and only.weight is None else tuple(pieces)


def write_content(content: str | tuple[Part, ...]) -> str | list[dict[str, Any]]:
    """Content in OpenAI's form; media that it does not know are `{type, url}`."""
    return content if isinstance(content, str) else [_write_part(part) for part in content]


def _part(part: Any, place: Place) -> Part:
    if isinstance(part, str):
        return Part(text=part)
    if not isinstance(part, Mapping):
        raise DataError(f"{place} must be text or an object with 'type', this is {kind_of(part)}")
    kind = part.get("type", "text")
    weight = weight_of(part, place)
    if kind in TEXT_TYPES:
        return Part(text=_text(part, "refusal" if kind == "refusal" else "text", place), weight=weight)
    if kind in MEDIA_TYPES:
        return Part(MEDIA_TYPES[kind], url=_url(part, kind, place), weight=weight)
    known = ", ".join(("text", *MEDIA_TYPES))
    raise DataError(
        f"{place} is of the type {kind!r}; known types: {known}. Tool calls belong into the message's 'tool_calls', "
        "their results into messages of the role 'tool', thoughts into 'reasoning_content'"
    )


def _text(part: Mapping[str, Any], key: str, place: Place) -> str:
    text = part.get(key)
    if isinstance(text, str):
        return text
    raise DataError(f"{place}.{key} must be text, this is {kind_of(text)}")


def _url(part: Mapping[str, Any], kind: str, place: Place) -> str | None:
    """Where a medium is: in whatever key the part says it; None when the part only marks the spot."""
    inside = part.get(kind) if part.get(kind) is not None else part.get(MEDIA_TYPES[kind])
    if isinstance(inside, Mapping) and isinstance(inside.get("data"), str):
        return f"data:{MEDIA_TYPES[kind]}/{inside.get('format', 'wav')};base64,{inside['data']}"
    if isinstance(inside, Mapping) and isinstance(inside.get("url"), str):
        inside = inside["url"]
    found = next((value for value in (inside, part.get("url"), part.get("path")) if value is not None), None)
    if found is None:
        others = [key for key, value in part.items() if key not in ("type", *WEIGHT_KEYS) and value is not None]
        if others:
            raise DataError(f"{place} does not say where its {MEDIA_TYPES[kind]} is in 'url', but has '{others[0]}'")
        return None
    return locate(found, place)


def _write_part(part: Part) -> dict[str, Any]:
    weight = {} if part.weight is None else {"weight": part.weight}
    if part.type == "text":
        return {"type": "text", "text": part.text, **weight}
    if part.url is None:
        return {"type": part.type, **weight}
    if part.type == "image":
        return {"type": "image_url", "image_url": {"url": part.url}, **weight}
    return {"type": part.type, "url": part.url, **weight}
