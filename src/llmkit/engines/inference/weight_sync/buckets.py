"""Tensors in portions of a bounded size."""

from collections.abc import Iterable, Iterator

from llmkit.engines.inference.weight_sync.contract import Named


def buckets(tensors: Iterable[Named], max_bytes: int) -> Iterator[list[Named]]:
    """The tensors in their order, as many together as `max_bytes` hold; one that is larger goes alone."""
    bucket: list[Named] = []
    size = 0
    for name, tensor in tensors:
        if bucket and size + tensor.nbytes > max_bytes:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, tensor))
        size += tensor.nbytes
    if bucket:
        yield bucket
