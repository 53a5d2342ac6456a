"""A short name for a row's tokens and mask, to compare what contenders made without sending it all."""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any


def digests(rows: Iterable[tuple[Sequence[int], Sequence[int]]]) -> dict[str, Any]:
    """Of each row's token ids and trained flags, and how many tokens there are."""
    names: list[str] = []
    num_tokens = num_trained = 0
    for token_ids, trained in rows:
        content = array("q", token_ids).tobytes() + b"|" + bytes(trained)
        names.append(hashlib.sha256(content).hexdigest()[:16])
        num_tokens += len(token_ids)
        num_trained += sum(trained)
    return {"digests": names, "num_tokens": num_tokens, "num_trained": num_trained}
