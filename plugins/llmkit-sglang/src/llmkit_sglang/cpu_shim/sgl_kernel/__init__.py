"""Stands in for SGLang's kernels, which have no build for CPUs on PyPI.

SGLang imports their names wherever it runs, and calls them on GPUs and on processors with AMX alone; elsewhere it has
PyTorch's own operations. So every name is here, and every call is an error.
"""

from typing import Any, NoReturn


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*arguments: Any, **options: Any) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name}: this environment has no build of sgl_kernel for its processor")

    missing.__name__ = name
    return missing
