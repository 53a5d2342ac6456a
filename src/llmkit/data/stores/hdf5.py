"""HDF5 files with a data set of token ids, flat or a sequence in each row."""

from typing import TYPE_CHECKING

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.data.stores.contract import Store

EXTRA = "hdf5"


class Config(Section):
    """Beside the ids may lie `labels`, `loss_mask` or `loss_weights` of the same shape, and, of flat ids, `ends`: where
    each sequence ends. Flat ids without `ends` are one long sequence."""

    token_ids: str = "input_ids"
    """Path of the data set of token ids in the file; the others lie in the same group."""


def build(config: Config) -> "Store":
    """Make the store."""
    from llmkit.data.stores.hdf5_store import HDF5Store

    return HDF5Store(config.token_ids)
