"""The settings of engines that are server programs: one vocabulary, whatever the program calls things."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from llmkit.config.section import Nonsemantic, Secret, Section

FOR_STARTED_SERVERS = (
    "python", "tp", "pp", "dp", "gpus", "dtype", "max_model_len", "memory_share", "cache_memory_gb", "max_running",
    "max_batch_tokens", "max_loras", "max_lora_rank", "prefix_cache", "eager", "seed", "logprobs", "extra_args",
    "extra_env", "log_dir", "start_seconds", "stop_seconds", "max_restarts",
)  # fmt: skip
"""Fields that have no effect on servers which llmkit did not start."""


class ServerEngineConfig(Section):
    """Servers that llmkit starts and looks after, or that run already.

    The engine's own flags go into `extra_args`, or behind `--` on the command line.
    """

    urls: Annotated[tuple[str, ...], Nonsemantic] = ()
    """Servers that run already, as `http://host:port`; llmkit then starts none. Empty starts them."""
    python: Annotated[str | None, Nonsemantic] = None
    """Interpreter of the environment that has the engine; unset takes what `llmkit engines install` remembers."""
    tp: int = Field(1, ge=1)
    """GPUs (on a CPU: processes with cores of their own) that each layer of a server is divided among."""
    pp: int = Field(1, ge=1)
    """Stages that the layers of a server are divided into, each on `tp` GPUs."""
    dp: int = Field(1, ge=1)
    """Servers to start, each with the whole model on `tp` x `pp` GPUs; requests are balanced over them."""
    gpus: Annotated[tuple[int, ...], Nonsemantic] = ()
    """Which of the machine's GPUs the servers take, by number; empty takes the first ones."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """Type in which the servers hold the weights; unset is `model.dtype`, `auto` the checkpoint's own."""
    max_model_len: int | None = Field(None, ge=1)
    """Most tokens of prompt and completion together; unset is what the run can ask for, else the model's context."""
    memory_share: float | None = Field(None, gt=0, le=1)
    """Share of each GPU's memory that weights and KV cache may take; unset leaves it to the engine."""
    cache_memory_gb: float | None = Field(None, gt=0)
    """Gigabytes for each server's KV cache; unset leaves it to the engine on a GPU, and takes little on a CPU."""
    max_running: int | None = Field(None, ge=1)
    """Most completions that a server draws side by side; unset leaves it to the engine."""
    max_batch_tokens: int | None = Field(None, ge=1)
    """Most tokens that go through a server's model together; unset leaves it to the engine."""
    max_loras: int = Field(0, ge=0)
    """Adapters that a server can hold at a time; 0 loads none."""
    max_lora_rank: int | None = Field(None, ge=1)
    """Highest rank of an adapter; unset leaves it to the engine."""
    served_name: str | None = None
    """Name of the model in requests; unset takes the model's path without the directories before it, and asks servers
    that run already."""
    api_key: Annotated[Secret | None, Nonsemantic] = None
    """Key that the servers ask for, best from the environment: `api_key=${env:MY_KEY}`."""
    prefix_cache: bool = True
    """Keep the beginnings of prompts for requests that begin alike."""
    eager: bool = False
    """Run the model without compiling or recording it: a quicker start, and slower tokens."""
    seed: int | None = Field(None, ge=0)
    """What the server's random numbers begin with; unset leaves it to the engine."""
    logprobs: Literal["raw", "processed"] | None = None
    """Of which distribution the servers' log-probabilities are: `raw` is the model's own, as clients of an API expect,
    `processed` the one that tokens are drawn from, which a trainer compares with. Unset is `raw` for `llmkit serve`,
    else `processed`."""
    extra_args: tuple[str, ...] = ()
    """More arguments for the server program, as they are; the same as what comes after `--` on the command line."""
    extra_env: dict[str, str] = Field(default_factory=dict)
    """More environment variables for the server program."""
    log_dir: Annotated[str | None, Nonsemantic] = None
    """Directory for the servers' logs; unset takes `servers/` of the run's directory, or without a run a new one in
    llmkit's cache, and says which."""
    start_seconds: Annotated[float, Nonsemantic] = Field(900.0, gt=0)
    """Time in which a server that was started must answer."""
    stop_seconds: Annotated[float, Nonsemantic] = Field(20.0, ge=0)
    """Time that a server has to end by itself; then it is killed, with all processes that it started."""
    max_restarts: Annotated[int, Nonsemantic] = Field(3, ge=0)
    """How often within an hour a server that crashed is started again; after that its engine fails."""

    @model_validator(mode="after")
    def _running_servers_are_not_set_up(self) -> Self:
        if not self.urls:
            return self
        fields = type(self).model_fields
        plain = {name: fields[name].get_default(call_default_factory=True) for name in FOR_STARTED_SERVERS}
        idle = [name for name, value in plain.items() if getattr(self, name) != value]
        if idle:
            raise ValueError(
                f"urls names servers that run already, on which {', '.join(idle)} has no effect; set it where they are "
                "started, or leave urls out"
            )
        return self

    @model_validator(mode="after")
    def _settings_go_together(self) -> Self:
        if self.memory_share is not None and self.cache_memory_gb is not None:
            raise ValueError("memory_share and cache_memory_gb both size the KV cache; set one of them")
        if self.max_lora_rank is not None and self.max_loras == 0:
            raise ValueError(f"max_lora_rank={self.max_lora_rank} has no effect with max_loras=0; set max_loras=1")
        if self.gpus and len(set(self.gpus)) < self.tp * self.pp * self.dp:
            raise ValueError(
                f"gpus={list(self.gpus)} are {len(set(self.gpus))}, and tp={self.tp} x pp={self.pp} x dp={self.dp} "
                f"take {self.tp * self.pp * self.dp}; name more or lower one of these"
            )
        return self
