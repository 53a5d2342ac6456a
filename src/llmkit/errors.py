"""What can go wrong, and with which exit code.

    LLMKitError                 a message for the user, never a stack trace
    ├── ConfigError             2  an option, a preset, a key or a value is wrong
    ├── PluginError             2  a plugin is missing, incompatible or broken (also a LookupError)
    ├── DataError               2  a file or a row cannot be used; names file:line
    ├── ModelError              2  a model directory, tokenizer or template cannot be used
    ├── CheckpointError         2  a checkpoint or a run directory cannot be used
    ├── EngineError             1  an engine failed while it ran
    ├── RewardError             1  a reward raised or gave no number
    └── TrainingError           1  training cannot go on (NaN loss, disk full)
"""


class LLMKitError(Exception):
    """A mistake that the user can mend: the message has the value, the place and the way out."""

    exit_code = 2


class ConfigError(LLMKitError):
    """A configuration key, value, preset or option is wrong."""


class PluginError(LLMKitError, LookupError):
    """A plugin is not installed, does not fit this version, or fails to import."""


class DataError(LLMKitError):
    """A data file or row cannot be read or used."""


class ModelError(LLMKitError):
    """A model, its tokenizer or its chat template cannot be loaded or used."""


class CheckpointError(LLMKitError):
    """A checkpoint or a run directory cannot be written, read or resumed."""


class EngineError(LLMKitError):
    """An engine failed while it was generating or training."""

    exit_code = 1


class RewardError(LLMKitError):
    """A reward function raised an error or returned something that is not a finite number."""

    exit_code = 1


class TrainingError(LLMKitError):
    """Training cannot go on: the loss is not finite, the disk is full, and so on."""

    exit_code = 1
