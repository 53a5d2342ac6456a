"""An update of another kind as a plain LoRA, for servers that know nothing else."""

from pathlib import Path
from typing import Any

import peft

from llmkit.adapters.adapter_files import write_adapter
from llmkit.adapters.wrapping import quiet
from llmkit.errors import ConfigError

ALL = 1.0
"""Share of the squared update that a conversion without a rank keeps: to the last digit, whatever rank that takes."""


def write_as_lora(model: Any, directory: Path, rank: int | None, base_model: dict[str, str | None]) -> None:
    """Write the update of a wrapped model as a LoRA by singular values, exact up to what the rank leaves out.

    Args:
        rank: of every module; None takes what each needs.
        base_model: what the checkpoint says of the base model.

    Raises:
        ConfigError: the rank is above the width of a module, or a layer's update is no added matrix.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with quiet():
            config, state = peft.convert_to_lora(model, rank if rank is not None else ALL)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"this adapter cannot become a LoRA of rank {rank}: {error}") from error
    write_adapter(directory, config, state, keep=("r", "lora_alpha"), **base_model)
