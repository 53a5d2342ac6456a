"""The shim in a Python of its own: modules that stand in for SGLang's and torchvision's show when it acts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SHIM = Path(__file__).parents[1] / "src/llmkit_sglang/cpu_shim"


def python(script: str, *paths: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [SHIM, *paths]))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_names_of_kernels_import_and_calls_say_which_is_missing():
    script = """
from sgl_kernel import moe_align_block_size
try:
    moe_align_block_size(1, x=2)
except NotImplementedError as error:
    print(error)
"""
    assert python(script).startswith("sgl_kernel.moe_align_block_size: this environment has no build")


def test_torchvisions_operators_are_there_when_it_is_imported(tmp_path):
    (tmp_path / "torchvision.py").write_text("import torch\nprint(torch.ops.torchvision.nms)\n")
    assert "torchvision.nms" in python("import torchvision", tmp_path)


def test_nothing_heavy_is_imported_before_it_is_needed():
    assert python("import sys; print('torch' in sys.modules)") == "False"


@pytest.mark.skipif(torch.accelerator.is_available(), reason="memory is pinned where there is an accelerator")
def test_pinned_memory_is_ordinary_memory_for_lora_layers(tmp_path):
    package = tmp_path / "sglang/srt/lora"
    package.mkdir(parents=True)
    for directory in (package, *list(package.parents)[:2]):
        (directory / "__init__.py").touch()
    (package / "layers.py").write_text(
        "import torch\n"
        "made = torch.empty(3, dtype=torch.int32, pin_memory=True), torch.zeros(2), torch.ones(2).pin_memory()\n"
        "print([str(one.dtype) for one in made])\n"
    )
    assert python("import sglang.srt.lora.layers", tmp_path) == "['torch.int32', 'torch.float32', 'torch.float32']"
