"""How running servers get the weights of the policy in training."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from llmkit.config.section import Nonsemantic, Section

TransportName = Literal["auto", "shared_memory", "disk", "nccl", "gloo", "cuda_ipc", "adapter"]


class WeightSyncConfig(Section):
    """The way of the weights, its deadlines, and what is checked of them."""

    transport: Annotated[TransportName, Nonsemantic] = "auto"
    """`shared_memory` (files in the memory of this machine) and `disk` work everywhere on one machine; `gloo` and
    `nccl` send through a process group; `cuda_ipc` lends the memory of a shared GPU; `adapter` sends a LoRA alone,
    which servers keep beside the base model. `auto` takes `adapter` where policy and servers can, else
    `shared_memory` where there is room, else `disk`."""
    directory: Annotated[Path | None, Nonsemantic] = None
    """Where files of `disk` and `adapter` go; unset is a temporary directory. Servers on other machines must see it
    under the same path."""
    host: Annotated[str, Nonsemantic] = "127.0.0.1"
    """Address of this machine at which servers reach the process groups of `gloo` and `nccl`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type in which weights travel; `auto` is the type in which the server keeps them."""
    bucket_mb: Annotated[int, Nonsemantic] = Field(512, ge=1)
    """Megabytes that travel together; a larger tensor travels alone."""
    timeout_seconds: Annotated[float, Nonsemantic] = Field(300.0, gt=0)
    """Most seconds that one phase of an update may take; after them the update is an error that names phase and
    server."""
    checksums: Annotated[bool, Nonsemantic] = True
    """Compare a checksum of every tensor as it was sent with that of what the server has read, where it can tell."""
    probe: Annotated[bool, Nonsemantic] = True
    """Compare what servers say of a probe prompt with what the policy says, after the first update at least."""
    probe_every: Annotated[int, Nonsemantic] = Field(0, ge=0)
    """Compare again after so many updates: 1 after every one, 0 after the first alone."""
    probe_tokens: Annotated[int, Nonsemantic] = Field(16, ge=1)
    """Tokens that each server draws of each probe prompt."""
    probe_tolerance: Annotated[float, Nonsemantic] = Field(0.25, gt=0)
    """Largest difference of a token's log-probability, nats. bfloat16 explains a few hundredths of small models."""
    probe_agreement: Annotated[float, Nonsemantic] = Field(0.8, ge=0, le=1)
    """Least share of the tokens that the server thinks likeliest and the policy too; where the policy's likeliest is
    closer than `probe_tolerance`, they count as the same."""
