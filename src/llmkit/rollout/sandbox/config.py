"""What code in the sandbox may use."""

from pydantic import Field

from llmkit.config.section import Section


class SandboxConfig(Section):
    """Limits of a program. It has no network, sees Python and its packages alone, and may write in a directory in
    memory that goes away with it."""

    timeout_seconds: float = Field(10.0, gt=0)
    """Longest time that it may run."""
    cpu_seconds: int = Field(10, ge=1)
    """Most processor time of each of its processes."""
    max_memory_mib: int = Field(512, ge=64)
    """Most memory that each of its processes may ask for."""
    max_processes: int = Field(16, ge=1)
    """Most processes and threads at a time."""
    max_file_mib: int = Field(16, ge=1)
    """Largest file that it may write; all of them together may have four times that."""
    max_output_chars: int = Field(20_000, ge=100)
    """Output beyond this is thrown away, of stdout and of stderr."""
    max_running: int | None = Field(None, ge=1)
    """Programs side by side; unset is one for each core."""
    allow_unisolated: bool = False
    """Where the system grants no isolation, run programs all the same, with limits but with network and files. Only
    for models whose code you would run yourself."""
