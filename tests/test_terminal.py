import os
import pty
import subprocess
import sys

SHOW = """
from llmkit.terminal import note
from llmkit.train.console import print_samples
from llmkit.trackers.progress import ProgressBar
from llmkit.types import Message, Record, Rollout, Source

record = Record((Message("user", "q"),), Source("a", 1))
bar = ProgressBar(10)
bar.log({"step": 1, "loss": 0.5})
print_samples("Before", [Rollout([1], [1], [0.0], [0], "stop", record, 0, "How many?", "42", 1.0)])
note("a note")
bar.log({"step": 2, "loss": 0.25})
bar.close()
"""


def test_on_a_terminal_everything_appears_above_the_progress_bar():
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"}
    process = subprocess.Popen([sys.executable, "-c", SHOW], stderr=follower, stdout=subprocess.PIPE, env=environment)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out == b""
    lines = [line.rsplit("\x1b[2K")[-1] for line in shown.decode().split("\r\n")]
    for expected in ("\x1b[1mBefore\x1b[0m", "\x1b[2mHow many?\x1b[0m", "42", "\x1b[32mreward 1\x1b[0m", "a note"):
        assert expected in lines
    assert any("step 2/10" in line and "loss 0.25" in line for line in lines)
