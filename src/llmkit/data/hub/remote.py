"""Data sets of the Hugging Face hub, or of its cache on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import datasets.config
import huggingface_hub
import huggingface_hub.constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from llmkit.data.hub.local import stream_files
from llmkit.data.hub.rows import LOADING_ERRORS, HubRows, HubStream, reason
from llmkit.errors import DataError

TIMEOUT_SECONDS = 10
LOCAL_COPY = "To use a local copy: --set dataset.path=DIR"


def load_from_hub(
    name: str,
    subset: str | None,
    split: str,
    *,
    revision: str | None,
    limit: int | None,
    data_files: str | list[str] | None = None,
) -> HubRows:
    """Rows of a data set on the hub; from the cache when the hub cannot be reached and it was downloaded before.

    Args:
        split: a split, part of one (`train[:10%]`), or several (`train+test`).
        data_files: which of its files, by names or patterns; None takes those that it names for the split.
    Raises:
        DataError: the name is a path that is not there, the set, subset or split does not exist, it needs a login, or
            the hub cannot be reached.
    """
    _check_name(name)
    if _reaches_hub(name, revision):
        return HubRows(_load(name, subset, split, revision, data_files), name, split, limit)
    with _offline():
        try:
            table: Any = datasets.load_dataset(name, subset, split=split, revision=revision, data_files=data_files)
        except LOADING_ERRORS:
            raise DataError(f"{_not_reached(name)} {LOCAL_COPY}") from None
    return HubRows(table, name, split, limit)


def stream_from_hub(
    name: str,
    subset: str | None,
    split: str,
    *,
    revision: str | None,
    limit: int | None,
    data_files: str | list[str] | None = None,
) -> HubStream:
    """The same rows, read from the hub while they are used, without downloading all first.

    Raises:
        DataError: as `load_from_hub`, and if `split` is not one whole split.
    """
    _check_name(name)
    if not _reaches_hub(name, revision):
        raise DataError(f"{_not_reached(name)} A stream needs it; for what was downloaded: dataset.streaming=false")
    return stream_files(name, subset, split, data_files=data_files, revision=revision, limit=limit)


def _check_name(name: str) -> None:
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise DataError(f"dataset.path={name}: no such file or directory")


def _not_reached(name: str) -> str:
    return (
        f"dataset.path={name}: no local directory of that name, and the Hugging Face hub cannot be reached (no "
        "network, or HF_HUB_OFFLINE is set)."
    )


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


def _load(name: str, subset: str | None, split: str, revision: str | None, data_files: Any) -> Any:
    try:
        return datasets.load_dataset(name, subset, split=split, revision=revision, data_files=data_files)
    except LOADING_ERRORS as error:
        raise DataError(
            f"dataset.path={name}: subset {subset or '(default)'}, split '{split}' cannot be loaded: {reason(error)}"
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
