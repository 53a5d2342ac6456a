"""Random numbers that a seed and a position decide, and nothing else."""

from collections.abc import Sequence

import numpy as np

# Constants of the SplitMix64 generator.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)


def uniform(seeds: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """Numbers in [0, 1) for B rows.

    A counter-based generator (SplitMix64, doi:10.1145/2714064.2660195): no state, so a row's draws are the same
    whatever shares its batch, and can go on after a restart.

    Args:
        seeds: B integers, each taken modulo 2^64.
        positions: how many tokens each row has drawn before.
    Returns: [B] float64.
    """
    bits = np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], dtype=np.uint64)
    bits += GOLDEN * (np.array(positions, dtype=np.uint64) + np.uint64(1))
    bits = (bits ^ (bits >> np.uint64(30))) * MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * MIX_2
    bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
