"""SGLang as servers that llmkit starts, in an environment of its own."""

from llmkit.config.servers import ServerEngineConfig
from llmkit_sglang.program import PROGRAM as PROGRAM


class Config(ServerEngineConfig):
    """What SGLang can be told; `llmkit engines install sglang` makes its environment."""
