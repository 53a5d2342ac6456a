"""Versions of what a result depends on."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "llmkit", "torch", "transformers", "tokenizers", "datasets", "pyarrow", "accelerate", "peft", "safetensors",
    "numpy",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
