"""Parquet tables of token ids: a column `input_ids` with `labels`, `loss_mask` or `loss_weights`."""

from typing import TYPE_CHECKING

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.data.stores.contract import Store


class Config(Section):
    """Rows without labels, mask or weights train every token."""

    token_ids_column: str = "input_ids"
    """Column with the token ids."""


def build(config: Config) -> "Store":
    """Make the store."""
    from llmkit.data.stores.row_store import ParquetStore

    return ParquetStore(config.token_ids_column)
