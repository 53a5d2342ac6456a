"""What programs of another environment see of llmkit's environment variables."""

import os

FOREIGN = (
    "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP", "OMP_NUM_THREADS", "RANK", "LOCAL_RANK", "WORLD_SIZE",
    "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
"""Variables that say something of llmkit's own environment, threads and place in a distributed run."""
FOREIGN_PREFIXES = ("TORCHELASTIC_", "LLMKIT__")


def own_environment() -> dict[str, str]:
    """Variables of this process that mean something to programs of another environment."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in FOREIGN and not name.startswith(FOREIGN_PREFIXES)
    }
