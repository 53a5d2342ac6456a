"""The entries of LLaMA-Factory's `dataset_info.json`."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llmkit.data.files.encoding import decode
from llmkit.data.files.local_file import unreadable
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError

FILE_NAME = "dataset_info.json"
FORMATTINGS = ("alpaca", "sharegpt", "openai")
ELSEWHERE = {
    "ms_hub_url": "on ModelScope",
    "om_hub_url": "on the OpenMind hub",
    "script_url": "made by a script, and llmkit runs no scripts that come with data",
    "cloud_file_name": "in a cloud's storage",
}
"""Where rows may be that llmkit does not load, and how that is said."""
COLUMNS = (
    "prompt", "query", "response", "history", "messages", "system", "tools", "images", "videos", "audios", "chosen",
    "rejected", "kto_tag",
)  # fmt: skip
TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")
TYPES: Mapping[str, type] = {
    "file_name": str, "hf_hub_url": str, **dict.fromkeys(ELSEWHERE, str), "formatting": str, "ranking": bool,
    "columns": dict, "tags": dict, "subset": str, "split": str, "folder": str, "num_samples": int,
}  # fmt: skip
"""The keys of an entry and what they hold."""


@dataclass(frozen=True)
class Entry:
    """One data set of a `dataset_info.json`.

    Attributes:
        name: of the entry.
        path: of the `dataset_info.json`.
        line: on which the entry begins.
        values: the entry's keys that are not null.
    """

    name: str
    path: Path
    line: int
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: '{self.name}'"

    @property
    def columns(self) -> Mapping[str, str] | None:
        """The file's columns by their meaning; None when the entry leaves them all at their defaults."""
        return self.values.get("columns")

    @property
    def tags(self) -> Mapping[str, str]:
        """The words of the file's turns by their meaning, those that the entry names."""
        return self.values.get("tags", {})


def read_entry(path: str, name: str) -> Entry:
    """One entry.

    Args:
        path: the file, or its directory; `~` is the home directory.
        name: of the entry.
    Raises:
        DataError: there is no such file or entry, or it has a key that is not known or holds something else.
    """
    file = Path(path).expanduser()
    file = file / FILE_NAME if file.is_dir() else file
    if not file.is_file():
        raise DataError(f"dataset.path={path}: no {FILE_NAME} there; name its directory")
    try:
        text = decode(str(file), file.read_bytes(), 0, 1).removeprefix("\ufeff")
    except OSError as error:
        raise unreadable(file, error) from None
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from None
    if not isinstance(entries, dict):
        raise DataError(f"{file}: must be an object of entries, this is {kind_of(entries)}")
    if name not in entries:
        raise DataError(f"{file}: no entry '{name}'.{_suggestion(name, entries)} Entries: {', '.join(entries)}")
    return checked(Entry(name, file, _line_of(text, name), _given(entries[name])))


def checked(entry: Entry) -> Entry:
    """The entry, when everything in it has a meaning.

    Raises:
        DataError: it has a key that is not known, or that holds something else than it should.
    """
    if not isinstance(entry.values, dict):
        raise DataError(f"{entry} must be an object, this is {kind_of(entry.values)}")
    _refuse_unknown(entry, "", entry.values, TYPES)
    for key, value in entry.values.items():
        if not isinstance(value, TYPES[key]) or (TYPES[key] is int and isinstance(value, bool)):
            raise DataError(f"{entry}: {key} is {kind_of(value)}; it must be {_WORDS[TYPES[key]]}")
    for key, known in (("columns", COLUMNS), ("tags", TAGS)):
        inner = entry.values.get(key, {})
        _refuse_unknown(entry, f"{key}.", inner, known)
        wrong = next((name for name, value in inner.items() if not isinstance(value, str)), None)
        if wrong is not None:
            raise DataError(f"{entry}: {key}.{wrong} is {kind_of(inner[wrong])}; it must be text")
    formatting = entry.values.get("formatting", "alpaca")
    if formatting not in FORMATTINGS:
        hint = _suggestion(formatting, FORMATTINGS)
        raise DataError(f"{entry}: formatting is '{formatting}'; it may be {', '.join(FORMATTINGS)}.{hint}")
    if entry.values.get("num_samples", 1) < 1:
        raise DataError(f"{entry}: num_samples is {entry.values['num_samples']}; it must be at least 1")
    return entry


_WORDS = {str: "text", bool: "true or false", dict: "an object", int: "a whole number"}


def _given(values: Any) -> Any:
    """The keys that are not null, also of the objects in an entry."""
    if not isinstance(values, dict):
        return values
    return {key: _given(value) for key, value in values.items() if value is not None}


def _refuse_unknown(entry: Entry, prefix: str, found: Collection[str], known: Collection[str]) -> None:
    unknown = next((key for key in found if key not in known), None)
    if unknown is not None:
        raise DataError(
            f"{entry}: {prefix}{unknown}: unknown key.{_suggestion(unknown, known)} Known keys: {', '.join(known)}"
        )


def _suggestion(word: str, known: Collection[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def _line_of(text: str, name: str) -> int:
    found = re.search(rf"^\s*{re.escape(json.dumps(name, ensure_ascii=False))}\s*:\s*\{{", text, re.MULTILINE)
    return 1 if found is None else text.count("\n", 0, found.end()) + 1
