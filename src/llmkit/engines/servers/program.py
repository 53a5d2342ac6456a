"""What llmkit has to know of a server program to install, start and watch it, as data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmkit.config.schema import ModelConfig

Device = Literal["cpu", "cuda", "npu"]


def as_it_is(value: Any) -> Any:
    """The value."""
    return value


@dataclass(frozen=True, slots=True)
class Flag:
    """An option as `name value` on the command line; left out where `convert` gives None."""

    name: str
    convert: Callable[[Any], Any] = as_it_is


@dataclass(frozen=True, slots=True)
class Argument:
    """An option as a bare argument, right behind the command."""


@dataclass(frozen=True, slots=True)
class Switch:
    """An option as `name` on the command line, where it is on (`when=False`: where it is off)."""

    name: str
    when: bool = True


@dataclass(frozen=True, slots=True)
class Variable:
    """An option as an environment variable."""

    name: str
    convert: Callable[[Any], Any] = as_it_is


@dataclass(frozen=True, slots=True)
class Entry:
    """An option in the program's configuration file: the keys, and numbers of list items, that lead to it."""

    path: tuple[str | int, ...]
    convert: Callable[[Any], Any] = as_it_is


Place = Flag | Argument | Switch | Variable | Entry

Option = Literal[
    "model",
    "revision",
    "trust_remote_code",
    "tokenizer",
    "chat_template",
    "served_name",
    "host",
    "port",
    "api_key",
    "dtype",
    "tp",
    "pp",
    "max_model_len",
    "memory_share",
    "cache_memory_gb",
    "max_running",
    "max_batch_tokens",
    "max_loras",
    "max_lora_rank",
    "prefix_cache",
    "eager",
    "seed",
    "logprobs",
]
"""The vocabulary. `cache_memory_gb` is the KV cache in 10^9 bytes; everything else is what its setting says."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a program's own rules may look at when one of its servers is about to start.

    Attributes:
        options: the vocabulary's values; those that nobody set are not there.
        device: what it runs on.
        slots: for each of the `tp` x `pp` processes, its cores (`cpu`) or its one GPU (`cuda`).
        architecture: the text model's configuration, as `config.json` has it; empty where it cannot be read.
        for_training: whether a trainer will send weights.
        context_length: most tokens that the model can take; None without a limit.
    """

    options: Mapping[str, Any]
    device: Device
    slots: tuple[tuple[int, ...], ...]
    architecture: Mapping[str, Any] = field(default_factory=dict)
    for_training: bool = False
    context_length: int | None = None


@dataclass(frozen=True, slots=True)
class Additions:
    """What a program needs besides its options.

    Attributes:
        arguments: of the command line.
        variables: of the environment.
        python_path: directories that the program's interpreter finds modules in.
        entries: of the configuration file.
    """

    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    python_path: tuple[str, ...] = ()
    entries: Mapping[tuple[str | int, ...], Any] = field(default_factory=dict)

    def __add__(self, other: "Additions") -> "Additions":
        return Additions(
            (*self.arguments, *other.arguments),
            {**self.variables, **other.variables},
            (*self.python_path, *other.python_path),
            {**self.entries, **other.entries},
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """What the server is doing once a line of its log matches."""

    pattern: str
    doing: str


@dataclass(frozen=True, slots=True)
class Hint:
    """What to do when a line of the log of a server that ended matches."""

    pattern: str
    advice: str


PYTHON_SERVER_HINTS = (
    Hint(r"OutOfMemoryError|out of memory", "Lower engine.memory_share or engine.max_running, or raise engine.tp"),
    Hint(r"[Aa]ddress already in use", "Another program took its port meanwhile: start again"),
    Hint(r"trust_remote_code=True", "Set model.trust_remote_code=true if you trust the checkpoint's Python code"),
    Hint(r"unrecognized arguments", "It does not know all arguments of engine.extra_args (or behind `--`)"),
)
"""What programs on PyTorch and transformers have in common."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an environment with the program is made.

    Attributes:
        packages: what pip is asked for.
        without_dependencies: packages that are installed first, without what they ask for.
        remove: packages to take out again, because they break others.
        metadata: packages (name -> version) that are there under another name, and that the program looks for.
    """

    packages: tuple[str, ...]
    without_dependencies: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def positive(value: int) -> int | None:
    """The value; None, so that it is not written, for 0."""
    return value or None


def nothing_more(situation: Situation) -> Additions:
    """No additions."""
    return Additions()


def no_file(config: Any, model: ModelConfig) -> Path | None:
    """The model's directory."""
    return None


def nothing_wrong(situation: Situation) -> list[str]:
    """No objections."""
    return []


@dataclass(frozen=True)
class Program:
    """A server program, for people who add another one: fill in what differs.

    Attributes:
        name: of the engine plugin.
        title: as its makers write it.
        command: what is run; `{python}` is the environment's interpreter and `{bin}` its directory, `{program}` the
            `executable`, `{config}` the configuration file.
        options: where each option goes. One that is not here cannot be set.
        module: what the environment must be able to import; empty for a program that is no Python package.
        package: the package whose version counts; empty where none does.
        cpu_path: directories that its interpreter finds modules in where there is no GPU, to import it.
        executable: the program to find on the PATH, for one without a Python environment; empty otherwise.
        devices: what it runs on.
        option_devices: options that it knows on one device only.
        additions: what it always needs, or needs on this machine.
        objections: what is wrong with a situation and how to mend it; nothing is started then.
        model_file: what it loads, by the engine's settings and the model; None is the model's directory.
        aliases: other spellings of its flags -> the spelling in `options`; of a bare argument, the option's name.
        choices: the only values of an option.
        config_name: name of its configuration file, which is JSON; empty where it has none.
        config_flag: argument that leads to that file; empty where it is part of `command`, or a variable does.
        config_variable: environment variable that leads to it.
        config_base: what is in that file besides options and additions.
        ready_path: answers 200 when the server takes requests.
        stages: what its log says of its start, in order.
        hints: what known failures mean.
        recipes: how its environment is made, per device; empty where llmkit cannot make it.
        how_to_install: for one that llmkit cannot install.
        seen_running: where llmkit's tests run it, in words; empty when they never did.
    """

    name: str
    title: str
    command: tuple[str, ...]
    options: Mapping[Option, tuple[Place, ...]]
    module: str = ""
    package: str = ""
    cpu_path: tuple[str, ...] = ()
    executable: str = ""
    devices: tuple[Device, ...] = ("cuda", "cpu")
    option_devices: Mapping[Option, Device] = field(default_factory=dict)
    additions: Callable[[Situation], Additions] = nothing_more
    objections: Callable[[Situation], list[str]] = nothing_wrong
    model_file: Callable[[Any, ModelConfig], Path | None] = no_file
    aliases: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[Option, tuple[Any, ...]] = field(default_factory=dict)
    config_name: str = ""
    config_flag: str = ""
    config_variable: str = ""
    config_base: Mapping[str, Any] = field(default_factory=dict)
    ready_path: str = "/health"
    stages: tuple[Stage, ...] = ()
    hints: tuple[Hint, ...] = ()
    recipes: Mapping[Device, Recipe] = field(default_factory=dict)
    how_to_install: str = ""
    seen_running: str = ""
