"""A number that tells tensors apart by their bytes, the same here and where they were sent from, on any device."""

import torch
from torch import Tensor

PART = 1 << 16
"""Words that are looked at together: they stay in a processor's cache."""


def fingerprint(tensor: Tensor) -> str:
    """16 hexadecimal digits; bytes that differ, or that changed places, give others.

    The sum, modulo 2^64, of the tensor's words of 8 bytes, each mixed and multiplied with an odd number of its place.
    It guards against accidents, not against forgers. llmkit's own sender computes the same.
    """
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    missing = -len(data) % 8
    if missing or data.storage_offset() % 8:
        data = torch.cat([data, data.new_zeros(missing)])
    words = data.view(torch.int64)
    places = torch.arange(1, 2 * PART, 2, device=words.device)
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    for start in range(0, len(words), PART):
        part = words[start : start + PART]
        total += ((part ^ (part >> 29)) * (places[: len(part)] + 2 * start)).sum()
    return f"{int(total) & (1 << 64) - 1:016x}"
