"""Whether a GPU can run the kernels, and how wide it is."""

from importlib.util import find_spec

import torch

LEAST_CAPABILITY = (8, 0)
"""Below it tensor cores have no bfloat16, and shared memory is smaller than the kernels' tiles."""


def why_not(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, in words; None when they can."""
    if device.type != "cuda":
        return f"it is for NVIDIA GPUs, and the model is on {device}"
    if torch.version.hip is not None:
        return "it is for NVIDIA GPUs, and this PyTorch is for those of AMD"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return "it is for GPUs since compute {}.{}, and this one has {}.{}".format(*LEAST_CAPABILITY, *capability)
    return None if find_spec("triton") is not None else "there is no Triton; pip install triton"


def num_processors(device: torch.device) -> int:
    """Of a GPU; 1 elsewhere."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
