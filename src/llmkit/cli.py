"""The root command: finds subcommands through entry points and imports only the one that was typed."""

import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from llmkit import plugins
from llmkit.errors import LLMKitError, OutOfMemory, PluginError, RunInterrupted
from llmkit.memory import asked_for, is_out_of_memory
from llmkit.plugins_requirements import PACKAGE, installed_version

EXAMPLES = """\b
Examples:
  llmkit train grpo --preset gsm8k-tiny    learn grade-school word problems, right here
  llmkit serve --model DIR                 answer clients of OpenAI and Anthropic
  llmkit presets list                      known-good settings to start from
  llmkit config explain train/grpo optim   what settings mean and where values come from
  llmkit plugins list                      engines, data sets, rewards and all the rest
  llmkit doctor                            what this machine has and what is missing
"""


class LazyGroup(TyperGroup):
    """A group whose subcommands are the plugins of the kind `commands`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names for help and completion."""
        return plugins.names("commands")

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """A stand-in with name and summary, for help and completion: nothing is imported."""
        if cmd_name not in plugins.names("commands"):
            return None
        return TyperCommand(cmd_name, help=plugins.summary("commands", cmd_name))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the root's own options, which are flags."""
        leave_values_as_text(self, ctx)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that was typed, imported."""
        name = args[0]
        if name.startswith("-"):
            return super().resolve_command(ctx, args)
        if ctx.resilient_parsing:  # a shell asks for completions
            return _command_to_complete(name, args, ctx)
        return name, import_command(name), args[1:]


def import_command(name: str) -> TyperCommand | TyperGroup:
    """Import a command plugin; it gets no completion options of its own.

    Raises:
        PluginError: there is none of this name, or it cannot be imported or used.
    """
    plugin = plugins.load("commands", name)
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    holder.info = plugin.info
    holder.registered_callback = plugin.registered_callback
    holder.registered_commands = plugin.registered_commands
    holder.registered_groups = plugin.registered_groups
    try:
        command: Any = typer.main.get_command(holder)
    except Exception as error:  # Typer raises all sorts for a signature that it cannot read
        found = plugins.find("commands", name)
        raise PluginError(f"The {found} is not a usable typer.Typer: {type(error).__name__}: {error}") from error
    command.name = name
    return command


def leave_values_as_text(command: Any, ctx: Any) -> None:
    """Keep Typer from converting option values, for which it imports pydantic: flags and completion need none of it."""
    for parameter in command.get_params(ctx):
        parameter.process_value = partial(_take, parameter)
    for subcommand in getattr(command, "commands", {}).values():
        leave_values_as_text(subcommand, ctx)


def _take(parameter: Any, ctx: Any, value: Any) -> Any:
    """What Typer does with a value, less the conversion."""
    if parameter.callback is None or ctx.resilient_parsing:
        return value
    return parameter.callback(ctx, parameter, value)


def _command_to_complete(name: str, args: list[str], ctx: Any) -> tuple[str | None, Any, list[str]]:
    try:
        command = import_command(name)
    except PluginError:  # it is told of when the command runs; a shell that completes wants silence
        return None, None, args
    leave_values_as_text(command, ctx)
    return name, command, args[1:]


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: 60 ms faster, and the same in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXAMPLES,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmkit {installed_version(PACKAGE)}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Train, sample, serve and measure language models from one command line."""


LOGS_AT_IMPORT = ("torchao", "torch.utils._pytree")
"""torchao, which transformers imports wherever it is installed, tells of every kernel that a machine has no use for."""


def main() -> None:
    """Run the program and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Returns: the exit code: 0 done, 1 the run failed, 2 bad input, 130 interrupted.
    """
    for name in LOGS_AT_IMPORT:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, `llmkit ... | head`: end quietly, and let the flush at exit find an open file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _dispatch(arguments: Sequence[str]) -> int:
    try:
        typer.main.get_command(app).main(args=list(arguments), prog_name="llmkit", obj=list(arguments))
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0
    except LLMKitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except RunInterrupted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return RunInterrupted.exit_code
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print(f"error: out of memory{asked_for(error)}: {error}", file=sys.stderr)
        return OutOfMemory.exit_code
    return 0
