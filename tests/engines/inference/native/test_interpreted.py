"""The Triton kernels, and what runs over them, in Triton's interpreter: no GPU is needed, and none is asked for."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(find_spec("triton") is None, reason="there is no Triton for this machine")
@pytest.mark.parametrize("file", ["interpreted_kernels.py", "interpreted_runner.py"])
def test_what_the_interpreter_checks(file: str):
    # Triton decides at import whether it interprets, for the whole process: a process of its own.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / file)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": "", "PYTEST_XDIST_WORKER": ""}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert " passed" in found.stdout
