"""The rows of an entry of `dataset_info.json` as records."""

import hashlib
import json
from collections.abc import Sequence
from glob import escape
from random import Random
from typing import Any

from llmkit.data.contract import Dataset, Fingerprinted, Formatter
from llmkit.data.datasets import files, huggingface
from llmkit.data.datasets.dataset_info import ELSEWHERE, Entry
from llmkit.data.formatters import alpaca, messages, sharegpt, text
from llmkit.data.formatters.turn_forms import form_with
from llmkit.errors import DataError
from llmkit.types import Record, Role, Row

DEFAULT_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
"""What an entry without `columns` means by them; all others are not read."""
PAIR = {"chosen": "chosen", "rejected": "rejected"}
SHARED = ("tools", "images", "videos", "audios")


def open_entry(entry: Entry, limit: int | None, seed: int) -> "EntryRows":
    """The records of an entry.

    Args:
        entry: of a `dataset_info.json`.
        limit: most rows, from the start; None reads all.
        seed: chooses the rows when the entry has `num_samples`.
    Raises:
        DataError: the rows cannot be opened, or the entry says too little to read them.
    """
    formatter = formatter_of(entry)
    rows = _open_rows(entry)
    order = chosen_rows(len(rows), entry.values.get("num_samples"), seed)
    return EntryRows(entry, rows, formatter, order if limit is None else order[:limit])


class EntryRows:
    """The data set: rows of a file or of the hub, read by the entry's columns and tags."""

    def __init__(self, entry: Entry, rows: Dataset, formatter: Formatter, order: Sequence[int]) -> None:
        """
        Args:
            entry: where the columns and tags come from.
            rows: as the file or the hub has them.
            formatter: reads them.
            order: numbers of the rows to give.
        """
        self._entry = entry
        self._rows = rows
        self._formatter = formatter
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self._order):
            raise IndexError(index)
        row = self._rows[self._order[index]]
        assert isinstance(row, Row), "files and tables give rows"
        try:
            return self._formatter.to_record(row)
        except DataError as error:
            raise DataError(f"{error} (columns and tags are those of {self._entry})") from None

    def fingerprint(self) -> str:
        """The same for the same rows read in the same way."""
        assert isinstance(self._rows, Fingerprinted), "files and tables know what decides their rows"
        order = self._order if isinstance(self._order, list) else len(self._order)
        text = json.dumps([self._rows.fingerprint(), self._entry.values, order], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def chosen_rows(num_rows: int, num_samples: int | None, seed: int) -> Sequence[int]:
    """Numbers of the rows that an entry takes.

    All of them; or `num_samples` drawn without repetition, in their order; where those are more than there are rows,
    all of them as often as they go into it, and the rest drawn.
    """
    if num_samples is None:
        return range(num_rows)
    rest = sorted(Random(seed).sample(range(num_rows), num_samples % num_rows))
    return [*range(num_rows)] * (num_samples // num_rows) + rest


def formatter_of(entry: Entry) -> Formatter:
    """What reads the entry's rows.

    Raises:
        DataError: the entry does not name a column that its format needs.
    """
    columns = _columns(entry)
    match entry.values.get("formatting", "alpaca"):
        case "sharegpt":
            return sharegpt.build(_sharegpt_config(entry, columns))
        case "openai" if not entry.values.get("ranking"):
            return _messages(entry, columns)
        case "openai":
            raise DataError(
                f"{entry}: ranking=true with formatting=openai is not known; use formatting=sharegpt with tags "
                "(role_tag role, content_tag content, user_tag user, assistant_tag assistant)"
            )
    if entry.columns is not None and set(columns) == {"prompt"}:
        # LLaMA-Factory's form of a corpus for pre-training: a prompt and nothing that answers it.
        return text.build(text.Config(text_column=columns["prompt"]))
    return alpaca.build(_alpaca_config(entry, columns))


def _columns(entry: Entry) -> dict[str, str]:
    """The columns that the entry reads, by their meaning."""
    columns = dict(DEFAULT_COLUMNS if entry.columns is None else entry.columns)
    if not entry.values.get("ranking"):
        return {meaning: column for meaning, column in columns.items() if meaning not in PAIR}
    columns = {**(PAIR if entry.columns is None else {}), **columns}
    lacking = next((meaning for meaning in PAIR if meaning not in columns), None)
    if lacking is not None:
        raise DataError(f"{entry}: ranking is true, and columns.{lacking} is not named")
    return columns


def _alpaca_config(entry: Entry, columns: dict[str, str]) -> alpaca.Config:
    if "prompt" not in columns:
        raise DataError(f"{entry}: columns.prompt is not named, and formatting=alpaca needs it")
    return alpaca.Config(
        instruction_column=columns["prompt"],
        input_column=columns.get("query"),
        # With a pair, the response has no part in training.
        output_column=None if entry.values.get("ranking") else columns.get("response"),
        history_column=columns.get("history"),
        **_common(columns),
    )


def _sharegpt_config(entry: Entry, columns: dict[str, str]) -> sharegpt.Config:
    names = {"role_tag": "role_key", "content_tag": "content_key"}
    tags = {names.get(tag, tag): word for tag, word in entry.tags.items()}
    return sharegpt.Config(conversations_column=_conversation(entry, columns), **_common(columns), **tags)


def _messages(entry: Entry, columns: dict[str, str]) -> messages.Messages:
    shared = {f"{meaning}_column": columns.get(meaning) for meaning in SHARED}
    config = messages.Config(
        messages_column=_conversation(entry, columns), label_column=columns.get("kto_tag"), **shared
    )
    if not entry.tags:
        return messages.build(config)
    words: dict[str, Role] = {word: sharegpt.TAGS[tag] for tag, word in entry.tags.items() if tag in sharegpt.TAGS}
    form = form_with(
        entry.tags.get("role_tag", "role"),
        entry.tags.get("content_tag", "content"),
        words,
        entry.tags.get("function_tag"),
    )
    return messages.Messages(config, form)


def _common(columns: dict[str, str]) -> dict[str, Any]:
    """Options that alpaca and sharegpt share; a column that the entry does not name is not read."""
    options: dict[str, str | None] = {
        f"{meaning}_column": columns.get(meaning) for meaning in ("system", "chosen", "rejected", *SHARED)
    }
    return {**options, "label_column": columns.get("kto_tag")}


def _conversation(entry: Entry, columns: dict[str, str]) -> str:
    if "messages" not in columns:
        raise DataError(f"{entry}: columns.messages is not named; its formatting needs it")
    return columns["messages"]


def _open_rows(entry: Entry) -> Any:
    values = entry.values
    if "hf_hub_url" in values:
        options: dict[str, Any] = {"path": values["hf_hub_url"], "split": values.get("split", "train")}
        if "subset" in values:
            options["subset"] = values["subset"]
        if "folder" in values:
            options["data_files"] = f"{values['folder']}/**"
        return huggingface.build(huggingface.Config(**options))
    if "file_name" in values:
        path = entry.path.parent / values["file_name"]
        if not path.exists():
            raise DataError(f"{entry}: file_name is '{values['file_name']}', and there is no {path}")
        # Every file of a folder belongs to the set, whatever its name says of a split.
        return files.build(files.Config(path=f"{escape(str(path))}/*" if path.is_dir() else str(path), limit=None))
    elsewhere = next((key for key in ELSEWHERE if key in values), None)
    if elsewhere is None:
        raise DataError(f"{entry}: the entry has neither file_name nor hf_hub_url, so it has no rows")
    raise DataError(
        f"{entry}: its rows are {ELSEWHERE[elsewhere]} ({elsewhere}: {values[elsewhere]}); load them into a file "
        f"beside {entry.path.name} and name it in file_name"
    )
