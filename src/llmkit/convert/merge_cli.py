"""The command `llmkit convert merge`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from llmkit.convert.options import AsJson, Base, DType, Overwrite, Revision, TrustRemoteCode, WeightType

EXAMPLES = """\b
Examples:
  llmkit convert merge runs/math/checkpoints/step-200 --output merged
  llmkit convert merge adapter --base Qwen/Qwen3-0.6B --dtype bfloat16 --output merged --verify
  llmkit convert merge math code --weight 0.7 --weight 0.3 --method ties --density 0.4 --output merged
\b
Plain LoRA is merged tensor by tensor, so that memory holds one weight; other kinds need the model in memory, and their
logits are always compared. Kinds that are no update of weights, such as prompts, are refused.
"""


class Method(StrEnum):
    """How several adapters become one."""

    LINEAR = "linear"
    TIES = "ties"
    DARE_LINEAR = "dare_linear"
    DARE_TIES = "dare_ties"
    MAGNITUDE_PRUNE = "magnitude_prune"
    SVD = "svd"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(merge)


def merge(
    adapters: Annotated[
        list[Path], typer.Argument(metavar="ADAPTER...", help="Directories of adapters in PEFT's layout.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory to write the model to.")],
    base: Base = None,
    revision: Revision = None,
    weight: Annotated[
        list[float] | None,
        typer.Option(metavar="N", show_default=False, help="Weight of each adapter in turn. [default: 1 each]"),
    ] = None,
    method: Annotated[
        Method, typer.Option(metavar="NAME", help=f"How several become one: {', '.join(Method)}.")
    ] = Method.LINEAR,
    density: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            show_default=False,
            help="Values to keep with ties, dare_*, magnitude_prune. [default: 0.5]",
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default=False, help="Rank of the sum, with --method svd.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of what dare_* draws.")] = 0,
    dtype: WeightType = DType.SAME,
    verify: Annotated[
        bool, typer.Option("--verify", help="Load the result and compare its logits; needs both models in memory.")
    ] = False,
    overwrite: Overwrite = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Merge adapters into their base model.

    The result is a model in Hugging Face layout with the tokenizer of the run, and conversion.json, which says what it
    was made from. It appears whole or not at all.
    """
    from llmkit.convert.merging.combining import Combination
    from llmkit.convert.merging.command import MergeRequest
    from llmkit.convert.merging.command import merge as merge_adapters
    from llmkit.convert.printing import tell

    check_options(adapters, weight, method, density, rank, seed)
    weights = tuple(weight) if weight else (1.0,) * len(adapters)
    how = Combination(method.value, weights, 0.5 if density is None else density, rank, seed)  # type: ignore[arg-type]
    request = MergeRequest(
        adapters=tuple(adapters),
        output=output,
        base=base,
        revision=revision,
        how=how,
        dtype=dtype.value,  # type: ignore[arg-type]
        verify=verify,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
    document = merge_adapters(request)
    tell(document, _lines(document), as_json=as_json)


def check_options(
    adapters: list[Path],
    weights: list[float] | None,
    method: Method,
    density: float | None,
    rank: int | None,
    seed: int,
) -> None:
    """Refuse options that do not go together.

    Raises:
        ConfigError: names them.
    """
    from llmkit.errors import ConfigError

    if weights and len(weights) != len(adapters):
        raise ConfigError(f"--weight is given {len(weights)} times for {len(adapters)} adapters; give one for each")
    if len(set(adapters)) < len(adapters):
        raise ConfigError("an adapter is named twice; weigh it with --weight instead")
    if method in (Method.LINEAR, Method.SVD) and density is not None:
        raise ConfigError(f"--density {density:g} has no effect on --method {method}, which keeps every value")
    if density is not None and not 0 < density <= 1:
        raise ConfigError(f"--density {density:g}: must be above 0 and at most 1")
    if (rank is not None) != (method is Method.SVD):
        raise ConfigError("--rank belongs to --method svd, and --method svd needs it")
    if seed and not method.startswith("dare"):
        raise ConfigError(f"--seed {seed} has no effect on --method {method}, which draws nothing")
    if len(adapters) == 1 and method in (Method.TIES, Method.DARE_TIES):
        raise ConfigError(f"--method {method} lets adapters decide on signs by majority, and there is one adapter")


def _lines(document: dict[str, Any]) -> list[str]:
    """What was done, for people."""
    options, checks = document["options"], document["checks"]
    because = f" ({options['because']})" if "because" in options else ""
    updated = f", {checks['updated_weights']} of them updated" if "updated_weights" in checks else ""
    lines = [
        f"Merged {len(document['inputs']['adapters'])} adapter(s) into {document['inputs']['base']['name']}, "
        f"{options['way']}{because}: {checks['weights']} weights{updated}, all finite."
    ]
    for key, what in (("logits_before_rounding", "in float32"), ("logits", "as written")):
        if key in checks:
            found = checks[key]
            lines.append(
                f"Largest difference of logits {what}: {found['largest']:.3g} (largest logit "
                f"{found['largest_logit']:.3g}, same likeliest "
                f"token at {found['same_tokens']:.1%} of {found['num_tokens']} positions)."
            )
    return [*lines, f"Written: {document['output']}"]
