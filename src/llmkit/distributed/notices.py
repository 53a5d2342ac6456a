"""Notices that one process of a run leaves for the others, to be read at any time, unlike what collectives bring."""

import json
from typing import Any

import torch.distributed as dist


def leave_notice(name: str, content: Any) -> None:
    """Put up a notice, in the place of the last one of this name.

    Args:
        content: as JSON can hold it.
    Raises:
        RuntimeError: the store of the run's processes is gone.
    """
    _store().set(_key(name), json.dumps(content))


def read_notice(name: str) -> Any:
    """What the last notice of this name says; None where there is none.

    Raises:
        RuntimeError: the store of the run's processes is gone.
    """
    store, key = _store(), _key(name)
    return json.loads(store.get(key)) if store.check([key]) else None


def _key(name: str) -> str:
    return f"llmkit/notices/{name}"


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()
