"""`llmkit convert merge`: read adapters, find their base, write the sum, and look at what was written."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from llmkit.config.schema import ModelConfig
from llmkit.convert.merging import whole
from llmkit.convert.merging.adapters import RECOMPUTED_STARTS, StoredAdapter, check_mergeable, read_adapter
from llmkit.convert.merging.base import base_directory, base_dtype, copy_beside, write_config
from llmkit.convert.merging.checking import Difference, compare, logits_of, with_updates
from llmkit.convert.merging.combining import Combination
from llmkit.convert.merging.low_rank import low_rank_updates
from llmkit.convert.merging.streaming import Updates, write_merged
from llmkit.convert.output import check_output, check_space, new_directory
from llmkit.convert.record import MANIFEST, Conversion, describe_directory
from llmkit.convert.tensor_files import WHOLE, WeightFiles
from llmkit.errors import ConfigError
from llmkit.models.loading import load_model, load_on_meta

DType = Literal["same", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class MergeRequest:
    """What to merge.

    Attributes:
        adapters: their directories.
        output: the directory to write.
        base: of the base model; None takes what the first adapter says.
        revision: of the base model.
        how: several adapters become one.
        dtype: of the merged weights; `same` keeps the base model's.
        verify: load what was written, and compare its logits.
        overwrite: replace what an earlier conversion wrote.
        trust_remote_code: run Python code that comes with the base model.
    """

    adapters: tuple[Path, ...]
    output: Path
    base: str | None
    revision: str | None
    how: Combination
    dtype: DType = "same"
    verify: bool = False
    overwrite: bool = False
    trust_remote_code: bool = False


def merge(request: MergeRequest) -> dict[str, Any]:
    """Write the merged model; returns what its manifest says.

    Raises:
        ConfigError: the adapters cannot be merged, or the output is in the way.
        CheckpointError, ModelError: an input is missing, damaged, or of another model.
        ConvertError: the result is not what it should be, or cannot be written.
    """
    adapters = [read_adapter(path) for path in request.adapters]
    for adapter in adapters:
        check_mergeable(adapter)
    check_output(request.output, request.adapters, overwrite=request.overwrite)
    config = adapters[0].base_config(request.base, request.revision, trust_remote_code=request.trust_remote_code)
    base = base_directory(config)
    local = config.model_copy(update={"path": str(base), "revision": None})
    conversion = _begin(request, adapters, config, base)
    updates = _updates(adapters, local, base, request.how)
    with new_directory(request.output, [*request.adapters, base], overwrite=request.overwrite) as out:
        if isinstance(updates, str):
            _merge_whole(request, adapters, local, base, out, conversion, updates)
        else:
            _merge_streaming(request, updates, local, base, out, conversion)
        tokenizer = next((adapter.path for adapter in adapters if adapter.has_tokenizer), None)
        copy_beside(base, tokenizer, out)
        if request.verify:
            expected = _expected(request, adapters, updates, local)
            conversion.checks["logits"] = _verified(expected, out, config).document()
        document = conversion.document() | {"files": describe_directory(out)}
        conversion.write(out / MANIFEST, document)
    return document


def _begin(request: MergeRequest, adapters: Sequence[StoredAdapter], config: ModelConfig, base: Path) -> Conversion:
    conversion = Conversion("merge", str(request.output))
    conversion.inputs = {
        "base": {"name": config.path, "path": str(base), "files": describe_directory(base)},
        "adapters": [
            {"path": str(adapter.path), "kind": adapter.kind, "files": describe_directory(adapter.path)}
            for adapter in adapters
        ],
    }
    conversion.options = {"combination": asdict(request.how), "dtype": request.dtype}
    for adapter in adapters:
        quantized = adapter.model.get("quantization", "none")
        if quantized != "none":
            conversion.notes.append(
                f"{adapter.path} was trained beside weights of model.quantization={quantized} and is merged into the "
                "whole ones, which differ from those by their rounding"
            )
        if adapter.start in RECOMPUTED_STARTS:
            conversion.notes.append(
                f"{adapter.path} began with init_lora_weights={adapter.start!r}: what that took out of the base "
                "weights was computed again from them"
            )
        recorded = adapter.config.base_model_name_or_path
        if request.base and recorded and str(recorded) != request.base:
            conversion.notes.append(f"{adapter.path} says that it was trained on {recorded}")
    return conversion


def _updates(adapters: Sequence[StoredAdapter], local: ModelConfig, base: Path, how: Combination) -> Updates | str:
    """The updates by the names of weights, or why the model has to be loaded for them."""
    model = load_on_meta(local)
    tensors = _tensors(base)
    if isinstance(tensors, str):
        found: Any = [tensors]
    else:
        found = [low_rank_updates(adapter, model, tensors) for adapter in adapters]
    if reason := next((one for one in found if isinstance(one, str)), None):
        if len(adapters) > 1 or how.method != "linear" or how.weights != (1.0,):
            raise ConfigError(
                f"only plain LoRA can be weighted or combined, and this is more: {reason}. Merge the adapters one "
                "after the other instead, each into the last output, with --base"
            )
        return reason
    together: dict[str, list[Any]] = {}
    for one, weight in zip(found, how.weights, strict=True):
        for name, update in one.items():
            together.setdefault(name, []).append((update, weight))
    return together


def _tensors(base: Path) -> Any:
    if not (base / WHOLE).is_file() and not any(base.glob("*.safetensors.index.json")):
        return "the base model's weights are not in safetensors files"
    return WeightFiles(base).tensors


def _merge_streaming(
    request: MergeRequest, updates: Updates, local: ModelConfig, base: Path, out: Path, conversion: Conversion
) -> None:
    files = WeightFiles(base)
    dtype = None if request.dtype == "same" else getattr(torch, request.dtype)
    written = [shape.num_bytes if dtype is None else shape.num_bytes * dtype.itemsize // shape.dtype.itemsize
               for shape in files.tensors.values()]  # fmt: skip
    check_space(request.output, sum(written))
    write_merged(files, updates, request.how, dtype, out)
    if dtype is not None:
        write_config(base, out, dtype=request.dtype)
    kinds = Counter(str(shape.dtype).removeprefix("torch.") for shape in files.tensors.values())
    conversion.options |= {"way": "tensor by tensor", "base_dtypes": dict(kinds)}
    conversion.checks |= {"weights": len(files.tensors), "updated_weights": len(updates), "all_finite": True}


def _merge_whole(
    request: MergeRequest,
    adapters: Sequence[StoredAdapter],
    local: ModelConfig,
    base: Path,
    out: Path,
    conversion: Conversion,
    reason: str,
) -> None:
    wrapped = whole.load_with_adapter(adapters[0], local)
    dtype = _chosen_dtype(request.dtype, base)
    num_bytes = sum(one.numel() for one in wrapped.get_base_model().parameters()) * dtype.itemsize
    check_space(request.output, num_bytes)
    expected = logits_of(wrapped)
    merged: Any = whole.merged_model(wrapped)
    # Before rounding the two are the same, or the method is not what it is taken for.
    conversion.checks["logits_before_rounding"] = compare(expected, logits_of(merged), torch.float32).document()
    whole.in_dtype(merged, dtype).save_pretrained(out)
    conversion.options |= {"way": "in memory", "because": reason}
    conversion.checks |= {"weights": len(merged.state_dict()), "all_finite": True}


def _chosen_dtype(dtype: DType, base: Path) -> torch.dtype:
    name = (base_dtype(base) or "float32") if dtype == "same" else dtype
    return getattr(torch, name.removeprefix("torch."))


def _expected(
    request: MergeRequest, adapters: Sequence[StoredAdapter], updates: Updates | str, local: ModelConfig
) -> torch.Tensor:
    """Logits of base model and adapters, the adapters beside the model and not in its weights."""
    if isinstance(updates, str) or (len(adapters) == 1 and request.how.weights == (1.0,)
                                    and request.how.method == "linear"):  # fmt: skip
        return logits_of(whole.load_with_adapter(adapters[0], local))
    model: nn.Module = load_model(local)
    with with_updates(model, updates, request.how):
        return logits_of(model)


def _verified(expected: torch.Tensor, out: Path, config: ModelConfig) -> Difference:
    written = ModelConfig(path=str(out), dtype="auto", trust_remote_code=config.trust_remote_code)
    model = load_model(written)
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.dtype.is_floating_point)
    return compare(expected, logits_of(model.float()), dtype)
