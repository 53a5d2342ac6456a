"""From presets, files, environment, options and `--set` to one validated run."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

from llmkit.config.changes import Change, Options, environment_changes, option_changes, set_change
from llmkit.config.concrete import Concrete, concretize
from llmkit.config.merging import apply_changes
from llmkit.config.problems import Problems
from llmkit.config.references import Expander
from llmkit.config.resolved import Resolved
from llmkit.config.section import Section
from llmkit.config.semantic import semantic_differences
from llmkit.config.shape import default_at, slot_at
from llmkit.config.sources import file_changes, preset_changes
from llmkit.config.suggestions import suggest_key
from llmkit.config.tree import DEFAULT, KeyPath, Node
from llmkit.config.validation import as_typed, refuse_masked, validate
from llmkit.errors import ConfigError

__all__ = ["Resolved", "resolve", "semantic_differences"]

R = TypeVar("R", bound=Section)


def resolve(
    schema: type[R],
    *,
    command: str,
    preset: str | None = None,
    files: Sequence[Path] = (),
    options: Options | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    keep_masked: bool = False,
) -> Resolved[R]:
    """The configuration of one run. Later sources win, in the order of the arguments, the environment before `options`.

    Args:
        schema: the schema of the command.
        command: `train/grpo`, say: the folder in which presets are looked for first.
        preset: name or path of a preset.
        files: `--config` files.
        options: command-line options: key -> (flag, value); a value of None was not given.
        overrides: arguments of `--set`: `a.b=value` or `~a.b`.
        environ: environment variables; None takes those of the process.
        keep_masked: accept a mask in place of a secret, to look at a run and not to repeat it.
    Raises:
        ConfigError: something is wrong; one line for everything that is, with places and suggestions.
    """
    environ = os.environ if environ is None else environ
    layers = _collect(
        lambda: preset_changes(command, preset) if preset else [],
        lambda: file_changes(command, files),
        lambda: environment_changes(environ),
        lambda: option_changes(options or {}),
        lambda: _set_changes(overrides),
    )
    changes = [change for layer in layers for change in layer]
    problems = Problems()
    settings = Node({}, DEFAULT)
    for layer in layers:
        settings = apply_changes(settings, layer, schema, problems)
    concrete, used = _finish(schema, settings, environ, problems)
    _check_resets(changes, concrete.schema, problems)
    if not keep_masked:
        refuse_masked(concrete.settings, concrete.schema, problems)
    run = validate(concrete.schema, concrete.settings, problems)
    problems.check()
    assert run is not None, "without a run there is a problem"
    return Resolved(command, schema, cast(R, run), settings, concrete.settings, changes, used)


def _collect(*sources: Callable[[], list[Change]]) -> list[list[Change]]:
    """What every source asks for; faults of all of them are told together."""
    layers: list[list[Change]] = []
    faults: list[str] = []
    for source in sources:
        try:
            layers.append(source())
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return layers


def _set_changes(overrides: Sequence[str]) -> list[Change]:
    return [
        change for layer in _collect(*(lambda text=text: [set_change(text)] for text in overrides)) for change in layer
    ]


def _finish(
    schema: type[Section], settings: Node, environ: Mapping[str, str], problems: Problems
) -> tuple[Concrete, dict[KeyPath, set[KeyPath]]]:
    """Expand references and put plugins in; what cannot be done goes to `problems`."""
    expander = Expander(settings, lambda path: default_at(schema, path, settings), environ)
    expanded = expander.expand()
    if expander.problems:  # a reference to the default of a plugin that a reference names waits for the second round
        first = concretize(schema, expanded, Problems())
        expander = Expander(settings, lambda path: default_at(first.schema, path), environ)
        expanded = expander.expand()
    for path, origin, text in expander.problems:
        problems.add(path, origin, text)
    concrete = concretize(schema, expanded, problems)
    return Concrete(concrete.schema, as_typed(concrete.settings, concrete.schema)), expander.used


def _check_resets(changes: Sequence[Change], schema: type[Section], problems: Problems) -> None:
    for change in changes:
        if change.is_reset and slot_at(schema, change.path) is None:
            problems.add(change.path, change.origin, f"unknown key. {suggest_key(schema, change.path)}")
