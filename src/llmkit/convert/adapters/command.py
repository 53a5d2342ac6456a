"""`llmkit convert adapter`: an adapter of another kind, or of a higher rank, as a plain LoRA for servers."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from llmkit.adapters.adapter_files import minimal, read_config, read_weights
from llmkit.adapters.conversion import write_as_lora
from llmkit.adapters.wrapping import load_state, quiet, wrap
from llmkit.convert.merging.adapters import StoredAdapter, plugin_facts, read_adapter
from llmkit.convert.merging.base import TOKENIZER, base_directory, matching
from llmkit.convert.merging.checking import logits_of
from llmkit.convert.merging.low_rank import HARMLESS_STARTS, UNDERSTOOD
from llmkit.convert.merging.whole import load_with_adapter
from llmkit.convert.output import check_output, new_directory
from llmkit.convert.record import MANIFEST, Conversion, describe_directory
from llmkit.errors import CheckpointError, ConfigError, ConvertError
from llmkit.models.loading import load_model

EXACT = 1e-3
"""Share of the largest logit by which a conversion that leaves nothing out may differ: singular values are exact to
about a ten-thousandth."""


@dataclass(frozen=True)
class AdapterRequest:
    """What to convert.

    Attributes:
        adapter: its directory.
        output: the directory to write.
        rank: of every module; None takes what each update needs.
        base: of the base model; None takes what the adapter says.
        revision: of the base model.
        overwrite: replace what an earlier conversion wrote.
        trust_remote_code: run Python code that comes with the base model.
    """

    adapter: Path
    output: Path
    rank: int | None = None
    base: str | None = None
    revision: str | None = None
    overwrite: bool = False
    trust_remote_code: bool = False


def convert_adapter(request: AdapterRequest) -> dict[str, Any]:
    """Write the LoRA; returns what the manifest says.

    Raises:
        ConfigError: the adapter has no update that a LoRA could stand for, or the output is in the way.
        CheckpointError, ModelError: an input is missing, damaged, or of another model.
        ConvertError: the LoRA is not what it should be, or cannot be written.
    """
    adapter = read_adapter(request.adapter)
    if reason := _not_convertible(adapter):
        raise ConfigError(
            f"{adapter.path}: {adapter.kind} cannot become a plain LoRA: {reason}. Merge it instead: llmkit convert "
            "merge"
        )
    check_output(request.output, [request.adapter], overwrite=request.overwrite)
    config = adapter.base_config(request.base, request.revision, trust_remote_code=request.trust_remote_code)
    base = base_directory(config)
    local = config.model_copy(update={"path": str(base), "revision": None})
    conversion = Conversion("adapter", str(request.output))
    conversion.inputs = {
        "base": {"name": config.path, "path": str(base), "files": describe_directory(base)},
        "adapter": {"path": str(adapter.path), "kind": adapter.kind, "files": describe_directory(adapter.path)},
    }
    _check_finite(adapter.path)
    wrapped = load_with_adapter(adapter, local)
    expected = logits_of(wrapped)
    with new_directory(request.output, [request.adapter, base], overwrite=request.overwrite) as out:
        named = {
            "base_model_name_or_path": adapter.config.base_model_name_or_path,
            "revision": adapter.config.revision,
        }
        write_as_lora(wrapped, out, request.rank, named)
        written = read_config(out)
        conversion.options = {"rank": request.rank, "ranks": _ranks(out)}
        if written.rank_pattern:
            conversion.notes.append(
                "modules have ranks of their own, which vLLM and SGLang refuse; --rank gives all of them the same"
            )
        conversion.checks = {"update_error": _update_error(wrapped, out)}
        del wrapped  # or the base model would be in memory twice
        plain = wrap(load_model(local), written, "lora").eval()
        load_state(plain, read_weights(out), out)
        conversion.checks |= _compared(expected, logits_of(plain), exact=request.rank is None)
        for file in matching(adapter.path, TOKENIZER):
            shutil.copyfile(file, out / file.name)
        document = conversion.document() | {"files": describe_directory(out)}
        conversion.write(out / MANIFEST, document)
    return document


def _check_finite(path: Path) -> None:
    for name, tensor in read_weights(path).items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: {name} has numbers that are not finite")


def _not_convertible(adapter: StoredAdapter) -> str:
    if adapter.kind != "LORA":
        said = [facts.convertible_to_lora for facts in plugin_facts(adapter.kind)]
        return "" if said and all(said) else "its update is not a matrix that is added to the weight"
    if adapter.start not in HARMLESS_STARTS:
        return f"it began with init_lora_weights={adapter.start!r}, which has changed the base weights"
    if more := next((key for key in minimal(adapter.config) if key not in UNDERSTOOD), None):
        return f"it has {more}={getattr(adapter.config, more)!r}, which is more than an added product"
    return ""


def _ranks(out: Path) -> dict[str, int]:
    """The smallest and the largest rank."""
    ranks = [tensor.shape[0] for name, tensor in read_weights(out).items() if name.endswith(".lora_A.weight")]
    return {"min": min(ranks), "max": max(ranks)}


@torch.no_grad()
def _update_error(wrapped: Any, out: Path) -> float:
    """Norm of what the LoRA leaves out of all updates, as a share of their norm (Frobenius)."""
    state = read_weights(out)
    lost = whole = 0.0
    for name, module in wrapped.named_modules():
        up, down = (state.get(f"{name}.lora_{which}.weight") for which in "BA")
        if isinstance(module, BaseTunerLayer) and up is not None and down is not None:
            with quiet():
                update: Any = module.get_delta_weight("default").float()  # type: ignore[operator]
            product = (up.float() @ down.float()).reshape(update.shape)
            lost += (update - product).square().sum().item()
            whole += update.square().sum().item()
    return (lost / whole) ** 0.5 if whole else 0.0


def _compared(expected: torch.Tensor, found: torch.Tensor, *, exact: bool) -> dict[str, float]:
    largest = (expected - found).abs().max().item()
    scale = max(1.0, expected.abs().max().item())
    if exact and not largest <= EXACT * scale:
        raise ConvertError(
            f"the LoRA's logits differ by {largest:.3g} from those of the adapter, and rounding explains "
            f"{EXACT * scale:.3g} at most; nothing was written"
        )
    same = (expected.argmax(-1) == found.argmax(-1)).float().mean().item()
    return {"largest_difference": largest, "largest_logit": scale, "same_tokens": same}
