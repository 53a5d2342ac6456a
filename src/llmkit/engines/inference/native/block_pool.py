"""Blocks of the key-value cache: who holds each, what it holds, and which one to give away next."""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence


def root_key(adapter: int, salt: str, generation: int) -> bytes:
    """Where a chain of keys begins: prefixes under another adapter, salt or generation of the weights never meet."""
    return hashlib.blake2b(f"{adapter}:{generation}:{salt}".encode(), digest_size=16).digest()


def chain_key(before: bytes, token_ids: Sequence[int]) -> bytes:
    """Name of a full block: what comes before it, and its own tokens."""
    return hashlib.blake2b(before + array("q", token_ids).tobytes(), digest_size=16).digest()


class BlockPool:
    """Reference-counted blocks, numbered from 0.

    A full block can be registered under a key. When nobody holds it any more it stays findable until it is taken for
    something else: of the blocks that nobody holds, those without a key go first, then the one released longest ago.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._keys: dict[int, bytes] = {}
        self._blocks: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds; findable ones are among them."""
        return len(self._free)

    def references(self, block: int) -> int:
        """How many hold the block."""
        return self._references[block]

    def take(self) -> int:
        """A block for one holder; what it held before is forgotten. There must be a free one."""
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self._references[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more holder of a block that is held or findable."""
        if self._references[block] == 0:
            del self._free[block]
        self._references[block] += 1

    def release(self, block: int) -> None:
        """One holder less."""
        count = self._references[block] - 1
        assert count >= 0, f"block {block} was released more often than it was taken"
        self._references[block] = count
        if count == 0:
            self._free[block] = None
            if block not in self._keys:
                self._free.move_to_end(block, last=False)

    def register(self, block: int, key: bytes) -> None:
        """Let others find a full block. A key that is there already stays with its block."""
        if key not in self._blocks and block not in self._keys:
            self._blocks[key] = block
            self._keys[block] = key

    def find(self, key: bytes) -> int | None:
        """The block of a key."""
        return self._blocks.get(key)

    def forget_all(self) -> None:
        """Nothing can be found any more; holders keep what they hold."""
        self._blocks.clear()
        self._keys.clear()

    def _forget(self, block: int) -> None:
        key = self._keys.pop(block, None)
        if key is not None:
            del self._blocks[key]
