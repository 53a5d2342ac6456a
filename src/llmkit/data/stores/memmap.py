"""Flat binary files of token ids, mapped into memory: our own with a header, and plain ones."""

from typing import TYPE_CHECKING, Literal

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.data.stores.contract import Store


class Config(Section):
    """`NAME.bin` holds token ids and nothing else. With `NAME.json`, `NAME.ends` and `NAME.weights` beside it, as
    llmkit writes them, it is many sequences with loss weights; alone it is one long sequence."""

    dtype: Literal["uint16", "uint32", "int32", "int64"] | None = None
    """Type of the ids of a file without `NAME.json`, which must be said; bytes are in the order of Intel and Arm."""


def build(config: Config) -> "Store":
    """Make the store."""
    from llmkit.data.stores.memmap_store import MemmapStore

    return MemmapStore(config.dtype)
