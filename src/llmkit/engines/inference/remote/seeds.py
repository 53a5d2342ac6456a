"""Seeds as servers take them."""

SEEDS = 1 << 62
"""Servers keep seeds in 64 bits with a sign, and add the completion's place to them."""


def folded(seed: int) -> int:
    """A seed of any size as one that servers take; the same one always, and neighbours stay neighbours."""
    return seed % SEEDS
