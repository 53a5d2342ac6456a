"""The configuration of `llmkit serve`."""

import ipaddress
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.config.section import PluginKind, PluginSection, Secret, Section, all_defaults


class ServerConfig(Section):
    """Where the server listens, and what it says of itself."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` is every one of this machine and needs an API key."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one and prints it."""
    served_names: tuple[str, ...] = ()
    """Names that requests may use for the model; none takes the model's path, without the directories before it."""
    allowed_hosts: tuple[str, ...] = ()
    """More names that requests may call this machine by while nobody needs a key, for a proxy in front; `*` is any."""
    cors_origins: tuple[str, ...] = ()
    """Web pages (`https://app.example.com`, or `*`) whose scripts may call the server; none allows none."""
    allow_without_keys: bool = False
    """Listen beyond this machine without any API key."""
    allow_adapter_loading: bool = False
    """Let requests load and unload adapters: whoever has a key can then name directories of this machine."""
    log_format: Literal["text", "json"] = "text"
    """How log lines look: for people, or one JSON object a line."""
    direct: bool = False
    """Let clients talk to the engine's own server, without llmkit's keys, limits and metrics before it."""
    access_log: bool = True
    """Log each request when it has been answered."""
    ping_seconds: float = Field(15.0, gt=0)
    """A stream that has nothing to say sends a sign of life this often, so that proxies keep it open."""
    drain_seconds: float = Field(30.0, ge=0)
    """After SIGTERM, running requests have this long to end; then each is told so and ended."""
    drain_delay_seconds: float = Field(0.0, ge=0)
    """After SIGTERM, requests are still taken for this long, while `/ready` already says no: for load balancers."""


class AuthConfig(Section):
    """Who may ask."""

    keys: tuple[Secret, ...] = ()
    """API keys as they are, best from the environment: `LLMKIT__AUTH__KEYS='[${env:MY_KEY}]'`."""
    keys_file: str | None = None
    """File of hashed keys that `llmkit serve keys` made; read again when it changes."""


class LimitsConfig(Section):
    """What one request, and all of them together, may take."""

    max_body_bytes: int = Field(16 << 20, ge=1)
    """Most bytes of a request's body; more gets 413."""
    body_seconds: float = Field(30.0, gt=0)
    """Time in which the body must have arrived; later gets 408."""
    max_prompt_tokens: int | None = Field(None, ge=1)
    """Most tokens of a prompt; unset is the model's context."""
    max_new_tokens: int = Field(32768, ge=1)
    """Most tokens that a completion may ask for."""
    max_completions: int = Field(128, ge=1)
    """Most completions of one request: prompts times `n`."""
    max_requests: int = Field(512, ge=1)
    """Most requests in the server, running and waiting; one more gets 503 and `Retry-After`."""
    max_requests_per_key: int | None = Field(None, ge=1)
    """Most requests of one API key at a time; one more gets 429 and `Retry-After`."""
    max_seconds: float = Field(600.0, gt=0)
    """Time after which a request is ended with 504; a request may ask for less."""


class ServeRun(Section):
    """`llmkit serve`: an OpenAI- and Anthropic-compatible server over any engine."""

    model: ModelConfig = all_defaults(ModelConfig)
    engine: Annotated[PluginSection, PluginKind("engines", "native")]
    """What draws the completions."""
    device: DeviceConfig = all_defaults(DeviceConfig)
    adapters: dict[str, str] = Field(default_factory=dict)
    """Adapters to load at the start: the name that requests use for `model`, and the adapter's directory."""
    tool_parser: Literal["auto", "none", "hermes", "llama3", "mistral"] = "auto"
    """How the model writes tool calls; `auto` finds out from its chat template."""
    reasoning_parser: Literal["auto", "none", "think"] = "auto"
    """Whether the model thinks between `<think>` and `</think>` first; `auto` finds out from its chat template."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """What the chat template reads besides the messages, such as `enable_thinking`; requests may say otherwise."""
    model_defaults: bool = True
    """Let the model's `generation_config.json` say how to draw where a request does not, and which tokens end it."""
    server: ServerConfig = all_defaults(ServerConfig)
    auth: AuthConfig = all_defaults(AuthConfig)
    limits: LimitsConfig = all_defaults(LimitsConfig)

    @model_validator(mode="after")
    def _public_servers_have_keys(self) -> Self:
        has_keys = bool(self.auth.keys) or self.auth.keys_file is not None
        if not (has_keys or self.server.allow_without_keys or is_loopback(self.server.host)):
            raise ValueError(
                f"server.host={self.server.host} is open to other machines and there is no API key; make one with "
                "`llmkit serve keys new` and give --keys-file, or say --set server.allow_without_keys=true"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether an address is for this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
