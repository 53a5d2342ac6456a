"""Are the weights those of the model that lies beside them?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from llmkit.convert.tensor_files import TensorShape
from llmkit.errors import CheckpointError

MEANT = "if the weights are meant to be so, move config.json elsewhere"


def check_model(directory: Path, tensors: Mapping[str, TensorShape]) -> str | None:
    """Hold names and shapes against `config.json`, where there is one.

    Returns: what could not be held against it, in words; None where all could.
    Raises:
        CheckpointError: a shape is another, or weights are missing among those of the model.
    """
    if not (directory / "config.json").is_file():
        return None
    shapes, reason = _shapes(directory)
    if reason is not None:
        return f"names and shapes were not held against config.json: {reason}"
    for name in sorted(shapes.keys() & tensors.keys()):
        if shapes[name] != tensors[name].shape:
            raise CheckpointError(
                f"{directory}: {name} is {list(tensors[name].shape)}, and config.json's model has "
                f"{list(shapes[name])}: they are of different models; {MEANT}"
            )
    missing, extra = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    if missing and extra:  # transformers has other names for the weights of some models than their files
        return f"{len(missing)} names of config.json's model are not among the weights ({missing[0]})"
    if missing:
        raise CheckpointError(
            f"{directory}: {missing[0]} of config.json's model is not among the weights ({len(missing)} such); the "
            f"download may be incomplete; {MEANT}"
        )
    return None


def _shapes(directory: Path) -> tuple[dict[str, tuple[int, ...]], str | None]:
    """Shapes of the model's own weights by name, shared ones once; or why nobody knows them."""
    import transformers

    try:
        config: Any = transformers.AutoConfig.from_pretrained(directory)
    except (OSError, ValueError, KeyError) as error:
        return {}, str(error).splitlines()[0].split(". ")[0]
    if getattr(config, "quantization_config", None):
        return {}, "the weights are quantised"
    names = getattr(config, "architectures", None) or []
    build = getattr(transformers, names[0], None) if names else None
    if build is None:
        return {}, f"transformers has no {names[0]}" if names else "it names no architecture"
    with torch.device("meta"):
        model = build(config)
    return {name: tuple(one.shape) for name, one in model.named_parameters(remove_duplicate=True)}, None
