"""Train the embedded model with llmkit's own supervised fine-tuning and keep it in the cache."""

import shutil
import tempfile
from pathlib import Path

from llmkit.cache import cached_directory, fingerprint
from llmkit.config.presets import find_preset
from llmkit.config.resolve import resolve
from llmkit.config.runs import SFTRun
from llmkit.data.datasets import arithmetic
from llmkit.embedded import untrained
from llmkit.terminal import note
from llmkit.train import sft
from llmkit.train.invocation import Invocation

COMMAND = "train/sft"
PRESET = "builtin-tiny"


def trained_model() -> Path:
    """The directory of the trained model. Its name changes with everything that the weights depend on."""
    sources = [Path(untrained.__file__), Path(arithmetic.__file__), find_preset(COMMAND, PRESET)]
    return cached_directory(f"tiny-{fingerprint(sources)}", train)


def train(directory: Path) -> None:
    """Run the preset and keep the checkpoint's Hugging Face files."""
    note("Making the embedded model builtin:tiny with `llmkit train sft`; this happens once.")
    with tempfile.TemporaryDirectory(prefix="llmkit-tiny-") as scratch:
        # The environment's settings are for the user's own run, not for this one.
        resolved = resolve(SFTRun, command=COMMAND, preset=PRESET, overrides=[f"output_dir={scratch}/run"], environ={})
        session = sft.fit(resolved, Invocation(name=PRESET))
        checkpoint = session.directory.checkpoints / f"step-{session.total_steps}"
        for path in checkpoint.iterdir():
            if path.is_file() and path.name != "llmkit.json":
                shutil.copy2(path, directory / path.name)
