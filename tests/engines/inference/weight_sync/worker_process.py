"""A worker of a server, as far as weight sync sees it: takes messages as lines of JSON, answers in lines of JSON.

It runs what vLLM's workers run of llmkit, without vLLM and without llmkit.
"""

import json
import sys

import torch
from llmkit_vllm_worker.channels import Channels
from llmkit_vllm_worker.fingerprints import fingerprint
from safetensors.torch import save_file


def main() -> None:
    """Serve until the input ends; `commit` writes what has arrived into the file that it names."""
    channels, arrived = Channels(torch.device("cpu"), int(sys.argv[1])), {}
    for line in sys.stdin:
        message = json.loads(line)
        answer = {}
        if message["method"] == "connect":
            channels.connect(message)
        elif message["method"] == "put":
            tensors = {name: tensor.clone() for name, tensor in channels.receive(message)}
            arrived |= tensors
            answer = {name: fingerprint(tensor) for name, tensor in tensors.items()}
        elif message["method"] == "commit":
            save_file(arrived, message["path"])
        print(json.dumps(answer), flush=True)


main()
