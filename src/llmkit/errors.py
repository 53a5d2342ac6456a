"""What can go wrong, and with which exit code.

LLMKitError                 a message for the user, never a stack trace
├── ConfigError             2  an option, a preset, a key or a value is wrong
├── PluginError             2  a plugin is missing, incompatible or broken (also a LookupError)
├── DataError               2  a file or a row cannot be used; names file:line
├── SourceError             2  what rows are read from broke off or changed: no single row that a run could leave out
├── ModelError              2  a model directory, tokenizer or template cannot be used
├── CheckpointError         2  a checkpoint or a run directory cannot be used
├── EngineError             1  an engine failed while it ran
│   ├── RequestError        1  a request that cannot be served as it is, whatever the load
│   └── EngineBusyError     1  a request that may be served later
├── RewardError             1  a reward raised or gave no number
├── RolloutError            1  rollouts failed that were asked for
├── ConvertError            1  a conversion failed, or its result is not what it should be
├── BenchError              1  a contender of a benchmark failed, or gave other results than the rest
└── TrainingError           1  training cannot go on (NaN loss, disk full)
    ├── ProcessLostError   76  another process of the run has gone; that one's error counts
    └── OutOfMemory         1  there is no memory left; names what was being done and the settings to change
RunInterrupted            130  no error: the user asked to stop and the run has saved itself
"""

from typing import Literal

Work = Literal["loading", "forward", "head", "backward", "optimizer", "generation", "other"]
"""What takes memory in a run."""


class LLMKitError(Exception):
    """A mistake that the user can mend: the message has the value, the place and the way out."""

    exit_code = 2


class ConfigError(LLMKitError):
    """A configuration key, value, preset or option is wrong."""


class PluginError(LLMKitError, LookupError):
    """A plugin is not installed, does not fit this version, or fails to import."""


class DataError(LLMKitError):
    """A data file or row cannot be read or used."""


class SourceError(LLMKitError):
    """What rows are read from broke off, changed or went away meanwhile.

    It is no `DataError`: nobody knows how many rows it takes along, so `data.on_error=skip` does not skip it.
    """


class ModelError(LLMKitError):
    """A model, its tokenizer or its chat template cannot be loaded or used."""


class CheckpointError(LLMKitError):
    """A checkpoint or a run directory cannot be written, read or resumed."""


class EngineError(LLMKitError):
    """An engine failed while it was generating or training."""

    exit_code = 1


class RequestError(EngineError):
    """A request that no retry will serve: too long, an unknown adapter, a schema that makes no sense."""


class EngineBusyError(EngineError):
    """The engine or server takes no request now.

    Attributes:
        retry_after_seconds: when it may be worth asking again.
    """

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RewardError(LLMKitError):
    """A reward function raised an error or returned something that is not a finite number."""

    exit_code = 1


class RolloutError(LLMKitError):
    """Rollouts that were asked for could not be made; those that could are in the run's file."""

    exit_code = 1


class ConvertError(LLMKitError):
    """A conversion could not be done, or what it wrote is not what it should be; nothing of it is left."""

    exit_code = 1


class BenchError(LLMKitError):
    """A contender of a benchmark failed, or its results differ from those that it is compared with."""

    exit_code = 1


class TrainingError(LLMKitError):
    """Training cannot go on: the loss is not finite, the disk is full, and so on."""

    exit_code = 1


class ProcessLostError(TrainingError):
    """Another process of a parallel run has ended or does not answer."""

    exit_code = 76


class OutOfMemory(TrainingError):  # noqa: N818 - the shell prints "error:" before it
    """There is no memory left.

    Attributes:
        work: what was being done.
        advice: what to change, from whoever knows the run.
    """

    def __init__(self, work: Work, what: str) -> None:
        super().__init__(what)
        self.work: Work = work
        self.advice = ""

    def __str__(self) -> str:
        return f"out of memory in {super().__str__()}.{f' {self.advice}' if self.advice else ''}"


class RunInterrupted(Exception):  # noqa: N818 - the run did what it was asked to do; nothing went wrong
    """A run stopped because SIGINT or SIGTERM asked for it, with its state saved.

    The message says where it was saved and how to go on. `main()` prints it without the word "error" and exits with
    `exit_code`, the shell's number for a program that was interrupted.
    """

    exit_code = 130
