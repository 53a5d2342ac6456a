"""Data sets in Hugging Face's form: from the hub, its cache on this machine, or a `save_to_disk` directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import datasets.config
import huggingface_hub
import huggingface_hub.constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from llmkit.errors import DataError
from llmkit.types import Row, Source

TIMEOUT_SECONDS = 10
LOCAL_COPY = "To use a local copy: --set dataset.path=DIR"


class TableRows:
    """Rows of one split. A row's place is `name[split]:row`, rows counted from 1."""

    def __init__(self, table: datasets.Dataset, name: str, split: str, limit: int | None) -> None:
        if not len(table):
            raise DataError(f"{name}[{split}]: the split has no rows")
        self._table = table
        self._place = f"{name}[{split}]"
        self._length = len(table) if limit is None else min(limit, len(table))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return Row(self._table[index], Source(self._place, index + 1))


def load_from_hub(name: str, subset: str | None, split: str, *, revision: str | None, limit: int | None) -> TableRows:
    """Rows of a data set on the hub; from the cache when the hub cannot be reached and it was downloaded before.

    Raises:
        DataError: the name is a path that is not there, the set, subset or split does not exist, it needs a login, or
            the hub cannot be reached.
    """
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise DataError(f"dataset.path={name}: no such file or directory")
    if _reaches_hub(name, revision):
        return TableRows(_load(name, subset, split, revision), name, split, limit)
    with _offline():
        try:
            table = datasets.load_dataset(name, subset, split=split, revision=revision)
        except (OSError, ValueError, RuntimeError):
            raise DataError(
                f"dataset.path={name}: no local directory of that name, and the Hugging Face hub cannot be reached (no "
                f"network, or HF_HUB_OFFLINE is set). {LOCAL_COPY}"
            ) from None
    return TableRows(table, name, split, limit)


def load_from_disk(path: Path, split: str, *, limit: int | None) -> TableRows:
    """Rows of a directory that `save_to_disk` wrote.

    Raises:
        DataError: it is not such a directory, is damaged, or lacks the split.
    """
    if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise DataError(
            f"{path}: not a directory of `save_to_disk`; for .jsonl, .json, .csv or .parquet files use "
            "--set dataset.name=files"
        )
    try:
        stored = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: the data set cannot be read: {_first_line(error)}") from None
    if isinstance(stored, datasets.DatasetDict):
        if split not in stored:
            raise DataError(f"{path}: no split '{split}'; splits here: {', '.join(map(str, stored))}")
        return TableRows(stored[split], str(path), split, limit)
    return TableRows(stored, str(path), split, limit)


def _reaches_hub(name: str, revision: str | None) -> bool:
    """Ask the hub once, with a deadline, whether it has the set.

    Loading by itself would try a dead network six times, for 23 seconds.
    """
    try:
        huggingface_hub.HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT_SECONDS)
    except GatedRepoError:
        page = f"https://huggingface.co/datasets/{name}"
        raise DataError(
            f"dataset.path={name}: its owner asks for consent at {page}; then run `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise DataError(f"dataset.revision={revision}: the hub's '{name}' has no such branch, tag or commit") from None
    except RepositoryNotFoundError:
        raise DataError(
            f"dataset.path={name}: no such directory here, and no such data set on the Hugging Face hub (or it is "
            f"private: `hf auth login`). {LOCAL_COPY}"
        ) from None
    except huggingface_hub.errors.HFValidationError:
        raise DataError(f"dataset.path={name}: no such directory, and not a name that the hub could have") from None
    except Exception:  # noqa: BLE001 - the HTTP library, and with it the error's class, differs between hub versions
        return False
    return True


def _load(name: str, subset: str | None, split: str, revision: str | None) -> Any:
    try:
        return datasets.load_dataset(name, subset, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"dataset.path={name}: subset {subset or '(default)'}, split '{split}' cannot be loaded: "
            f"{_first_line(error)}"
        ) from None


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the hub's libraries from trying the network; both read these constants at each request."""
    former = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = former


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
