"""Is the Hugging Face hub there? Asked once for each model, so that a dead network costs seconds and one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import huggingface_hub
import huggingface_hub.constants
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

TIMEOUT_SECONDS = 10


@contextmanager
def reaching_hub(name: str, revision: str) -> Iterator[None]:
    """Load from the hub, or from its cache on this machine when the hub cannot be reached.

    Loading by itself would try a dead network twelve times, for fifty seconds, and tell of each.
    """
    former = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = former or not _answers(name, revision)
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = former


@cache
def _answers(name: str, revision: str) -> bool:
    try:
        huggingface_hub.HfApi().model_info(name, revision=revision, timeout=TIMEOUT_SECONDS)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
        return True  # an answer too; loading fails with it
    except Exception:  # noqa: BLE001 - the HTTP library, and with it the error's class, differs between hub versions
        return False
    return True
