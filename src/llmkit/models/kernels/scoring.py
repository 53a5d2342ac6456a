"""What products of a language model's head say about tokens, in one pass over each row of them."""

import torch
from torch import Tensor

from llmkit.models.kernels import library
from llmkit.models.kernels.structures import ScoreTask
from llmkit.models.scoring import Scoring, TokenLogprobs


def score_rows(
    products: Tensor,
    targets: Tensor,
    scoring: Scoring,
    *,
    entropy: bool = False,
    mean_logprobs: bool = False,
    upstream: Tensor | None = None,
) -> TokenLogprobs:
    """Log-probabilities of `targets`, in float32; `library.takes` says for which products.

    Args:
        products: [N, V]; with `upstream` they are overwritten.
        targets: [N] int64.
        upstream: [N] gradients by the log-probabilities: the gradient by the products takes their place.
    """
    logprobs = torch.empty(len(products), dtype=torch.float32)
    entropies = torch.empty_like(logprobs) if entropy else None
    means = torch.empty_like(logprobs) if mean_logprobs else None
    targets = targets.contiguous()
    above = None if upstream is None else upstream.float().contiguous()
    task = ScoreTask(
        rows=len(products),
        words=products.shape[1],
        threads=torch.get_num_threads(),
        factor=scoring.scale / scoring.temperature,
        softcap=scoring.softcap or 0.0,
        temperature=scoring.temperature,
        products=library.address(products),
        targets=library.address(targets),
        logprobs=library.address(logprobs),
        entropies=library.address(entropies),
        means=library.address(means),
        upstream=library.address(above),
    )
    library.call("score_rows", products.dtype, task)
    return TokenLogprobs(logprobs, entropies, means)
