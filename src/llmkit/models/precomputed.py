"""Log-probabilities of a frozen model, computed once for all data and kept in the cache."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llmkit.cache import cached_directory
from llmkit.models.logprobs import supervised_positions
from llmkit.models.packed import sequence_ids
from llmkit.types import Batch

GROUP = "reference"
"""Directory of the cache that they are kept in."""
DIGEST_BYTES = 16


class PrecomputedLogprobs:
    """Log-probabilities of the supervised tokens of sequences, found by the sequences' tokens."""

    def __init__(self, directory: Path) -> None:
        """Open what `precompute` wrote."""
        digests = (directory / "digests.bin").read_bytes()
        names = [digests[start : start + DIGEST_BYTES] for start in range(0, len(digests), DIGEST_BYTES)]
        ends = np.load(directory / "ends.npy").tolist()
        self._spans = dict(zip(names, zip([0, *ends[:-1]], ends, strict=True), strict=True))
        self._values = np.load(directory / "logprobs.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self._spans)

    def logprobs(self, batch: Batch) -> Tensor:
        """[N] of the tokens of a batch that carry loss, nats, in order of position.

        Raises:
            KeyError: a sequence was not there when they were computed.
        """
        parts = [self._values[slice(*self._spans[name])] for name in _digests(batch)]
        return torch.from_numpy(np.concatenate(parts)).to(batch.token_ids.device)


def precompute(
    name: str, batches: Callable[[], Iterable[Batch]], logprobs: Callable[[Batch], Tensor]
) -> PrecomputedLogprobs:
    """Take them from the cache, or compute them and keep them there.

    Args:
        name: of the model, the data, and what else the numbers depend on.
        batches: gives every sequence, in any number of batches.
        logprobs: the model's [N] log-probabilities of a batch.
    Raises:
        TrainingError: the cache cannot be written.
    """
    return PrecomputedLogprobs(cached_directory(name, lambda path: _write(path, batches(), logprobs), group=GROUP))


def data_digest(batches: Iterable[Batch]) -> str:
    """A short name for the sequences of batches, whatever their order and whichever come together."""
    digest = hashlib.sha256()
    for name in sorted({name for batch in batches for name in _digests(batch)}):
        digest.update(name)
    return digest.hexdigest()[:16]


def weights_digest(parameters: Iterable[Tensor]) -> str:
    """A short name for the values of parameters."""
    digest = hashlib.sha256()
    for parameter in parameters:
        flat = parameter.detach().cpu().contiguous().flatten()
        digest.update(f"{parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _write(directory: Path, batches: Iterable[Batch], logprobs: Callable[[Batch], Tensor]) -> None:
    found: dict[bytes, np.ndarray] = {}
    for batch in batches:
        values = logprobs(batch).float().cpu()
        owners = sequence_ids(batch)[supervised_positions(batch)].cpu()
        counts = torch.bincount(owners, minlength=len(batch.sequence_ends)).tolist()
        for name, part in zip(_digests(batch), values.split(counts), strict=True):
            found[name] = part.numpy()
    (directory / "digests.bin").write_bytes(b"".join(found))
    np.save(directory / "ends.npy", np.cumsum([len(values) for values in found.values()], dtype=np.int64))
    np.save(directory / "logprobs.npy", np.concatenate(list(found.values())))


def _digests(batch: Batch) -> Iterator[bytes]:
    """A name for each sequence: its tokens, those that it shares included, and which of them carry loss."""
    ids, trained = batch.token_ids.cpu().numpy(), (batch.loss_weights != 0).cpu().numpy()
    starts = [0, *batch.sequence_ends[:-1]]
    prefixes = batch.prefixes or [(0, 0)] * len(starts)
    for start, end, prefix in zip(starts, batch.sequence_ends, prefixes, strict=True):
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        for values in (ids, trained):
            digest.update(np.concatenate([values[slice(*prefix)], values[start:end]]).tobytes())
        yield digest.digest()
