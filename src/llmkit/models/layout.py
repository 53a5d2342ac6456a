"""Attention over sequences laid end to end, each to itself alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmkit.models.attention import LONGEST_ROW, fused_attention
from llmkit.models.compiled_attention import Piece, attend_in_pieces, can_attend
from llmkit.models.cuda_attention import can_run_varlen, varlen_attention
from llmkit.models.row_attention import row_attention
from llmkit.models.rows import Rows, from_rows, order_of_tokens, row_groups


class Layout:
    """Where sequences lie in a packed batch.

    On a CPU short sequences are lifted into right-padded rows inside the attention alone: no dense mask is built, and
    a few batched products replace a loop over sequences. On a GPU one kernel takes all of them.
    """

    def __init__(self, sequence_ends: Sequence[int], device: torch.device) -> None:
        starts = [0, *sequence_ends[:-1]]
        self.spans = [slice(start, end) for start, end in zip(starts, sequence_ends, strict=True)]
        self.longest = max(span.stop - span.start for span in self.spans)
        self._boundaries = torch.tensor([0, *sequence_ends], dtype=torch.int32, device=device)
        self._groups: list[Rows] = row_groups(self.spans, device)
        self._pieces = [Piece([self.spans[number] for number in group.members]) for group in self._groups]
        self._order = order_of_tokens(self._groups, self.spans).to(device)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float, sliding_window: int | None
    ) -> Tensor:
        """[1, T, H, D] attention of each token to what is before it in its own sequence.

        Args:
            query: [1, H, T, D]; key and value: [1, H_kv, T, D].
        """
        if not dropout and can_run_varlen(query):
            return varlen_attention(query, key, value, self._boundaries, self.longest, scaling, sliding_window)
        in_sight = not sliding_window or self.longest <= sliding_window
        if query.device.type == "cpu" and self.longest <= LONGEST_ROW and in_sight and not dropout:
            if can_attend(query, key, value):
                return attend_in_pieces(query, key, value, self._pieces, scaling)
            return self.in_rows(query, key, value, scaling)
        return self.in_turn(query, key, value, scaling, dropout, sliding_window)

    def in_rows(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """The sequences as rows, those of similar length together."""
        found = [
            from_rows(row_attention(group.to_rows(query), group.to_rows(key), group.to_rows(value), scaling))
            for group in self._groups
        ]
        return torch.cat(found).index_select(0, self._order)[None]

    def in_turn(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float, sliding_window: int | None
    ) -> Tensor:
        """One sequence after another through the fused kernel, on any device."""
        pieces = [
            fused_attention(query[:, :, span], key[:, :, span], value[:, :, span], scaling, dropout, sliding_window)
            for span in self.spans
        ]
        return torch.cat(pieces, dim=2).transpose(1, 2)
