import json
import subprocess
import sys
from pathlib import Path

import pytest

FAKES = Path(__file__).parent.parent / "fakes"
MEASURED = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from character_encoding import CharacterEncoder, TextFormatter
from llmkit.config.schema import BatchConfig
from llmkit.data.datasets import files
from llmkit.data.row_errors import RowErrors
from llmkit.data.loading.stream_loader import StreamLoader

def memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

# Long rows are dropped: what is measured is the stream's memory, and not the time of tokenizing.
loader = StreamLoader(
    files.build(files.Config(path=sys.argv[1], streaming=True)), TextFormatter(), CharacterEncoder(max_length=20),
    BatchConfig.model_validate({"packing": sys.argv[3]}), seed=0, shuffle=True, shuffle_block=500, max_length=20,
    errors=RowErrors("raise", 0), num_workers=0,
)
held = []
while loader.epoch < 1:
    loader.next_step()
    held.append((loader.epoch, memory()))
early = max(memory for epoch, memory in held[: len(held) // 10])
print(json.dumps({"growth": max(memory for _, memory in held) - early, "rows": loader.counts.rows}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("packing", ["none", "best_fit"])
def test_memory_stays_flat(tmp_path: Path, packing: str):
    path = tmp_path / "large.jsonl"
    lines = (json.dumps({"text": f"{n}" if n % 4 else "long " * 500}) + "\n" for n in range(40_000))
    path.write_text("".join(lines))
    size = path.stat().st_size
    assert size > 25_000_000
    command = [sys.executable, "-c", MEASURED, str(path), str(FAKES), packing]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    measured = json.loads(done.stdout)
    assert measured["rows"] >= 40_000
    assert measured["growth"] < size / 5
