"""A server program with the standard library alone, and with the faults that real ones have.

`small_server.py --port P [--api-key K] [--fault NAME]...`; it writes its process ids to `--pids FILE`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--name", default="small")
parser.add_argument("--api-key")
parser.add_argument("--pids", type=Path)
parser.add_argument("--fault", action="append", default=[])
options = parser.parse_args()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.path == "/v1/models" and options.api_key not in (None, self.key):
            self.answer(401, {"error": "no key"})
        elif self.path == "/v1/models":
            names = ["poet", "critic"] if "two models" in options.fault else [options.name]
            self.answer(200, {"data": [{"id": name} for name in names]})
        elif self.path == "/environment":
            self.answer(200, dict(os.environ))
        else:
            self.answer(503 if "never ready" in options.fault else 200, {})

    @property
    def key(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format, *arguments):
        pass


def note(pid):
    if options.pids:
        with options.pids.open("a") as file:
            file.write(f"{pid}\n")


note(os.getpid())
if "crashes" in options.fault:
    print("loading weights", flush=True)
    print("ValueError: the tokenizer is of another planet", flush=True)
    sys.exit(3)
if "hangs" in options.fault:
    print("loading weights", flush=True)
    time.sleep(600)
if "ignores SIGTERM" in options.fault:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "has children" in options.fault:
    note(subprocess.Popen(["sleep", "600"]).pid)
    # One that leaves the session, and whose parent ends at once: nothing but a subreaper keeps hold of it.
    script = (
        "import subprocess; from subprocess import DEVNULL; "
        "print(subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=DEVNULL, stderr=DEVNULL).pid)"
    )
    note(int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout))
if "comes late" in options.fault:
    time.sleep(0.5)
print("opening the port", flush=True)
if "once" in options.fault and options.pids and len(options.pids.read_text().split()) > 1:
    sys.exit(4)
ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
