"""vLLM as servers that llmkit starts, in an environment of its own."""

from llmkit.config.servers import ServerEngineConfig
from llmkit_vllm.program import PROGRAM as PROGRAM


class Config(ServerEngineConfig):
    """What vLLM can be told; `llmkit engines install vllm` makes its environment."""
