"""What several sequences begin with is computed by one of them: who it is, and what is there already."""

from llmkit.engines.inference.native.block_pool import BlockPool
from llmkit.engines.inference.native.runner import BLOCK_SIZE
from llmkit.engines.inference.native.sequences import Sequence


class Sharing:
    """Sequences of one prompt follow the one that computes it; those that only begin alike wait for its full blocks."""

    def __init__(self, pool: BlockPool, *, shares_blocks: bool, keeps_prefixes: bool) -> None:
        """Args:
        shares_blocks: see `Limits`; so is keeps_prefixes.
        """
        self._pool = pool
        self._shares_blocks = shares_blocks
        self._keeps_prefixes = keeps_prefixes
        self._leaders: dict[tuple[object, ...], Sequence] = {}
        self._computing: dict[bytes, Sequence] = {}

    def leader_of(self, sequence: Sequence) -> Sequence | None:
        """Who is computing its whole prompt already."""
        return self._leaders.get(sequence.twin_key) if sequence.twin_key is not None else None

    def find_prefix(self, sequence: Sequence) -> list[int] | None:
        """Blocks that hold its first tokens; None while another sequence is computing the next of them."""
        found: list[int] = []
        if sequence.root is None or not self._keeps_prefixes or sequence.scores_prompt:
            return found
        # The last token goes through the model in any case: the next one is drawn from what it gives.
        for number in range((len(sequence.token_ids) - 1) // BLOCK_SIZE):
            key = sequence.key(number)
            block = self._pool.find(key)
            if block is None:
                return None if key in self._computing else found
            found.append(block)
        return found

    def lead(self, sequence: Sequence) -> None:
        """Let others know what it is about to compute."""
        if sequence.root is None:
            return
        if self._shares_blocks and sequence.twin_key is not None:
            self._leaders.setdefault(sequence.twin_key, sequence)
        if self._keeps_prefixes:
            for number in range(sequence.num_computed // BLOCK_SIZE, len(sequence.token_ids) // BLOCK_SIZE):
                self._computing.setdefault(sequence.key(number), sequence)

    def stop_leading(self, sequence: Sequence) -> None:
        """What it has not computed yet, it never will."""
        if sequence.twin_key is not None and self._leaders.get(sequence.twin_key) is sequence:
            del self._leaders[sequence.twin_key]
        for key in sequence.keys:
            if self._computing.get(key) is sequence:
                del self._computing[key]

    def computed(self, sequence: Sequence, first: int, end: int) -> None:
        """Its full blocks number `first` to `end - 1` are in the cache, for all to find."""
        if sequence.root is None or not self._keeps_prefixes:
            return
        for block in range(first, end):
            key = sequence.key(block)
            self._pool.register(sequence.blocks[block], key)
            self._computing.pop(key, None)
