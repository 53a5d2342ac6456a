"""Help of `llmkit serve` and `llmkit chat`: what options mean and their defaults, read from the schema when asked."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

from llmkit.config.options import describe_options
from llmkit.serve.options import EXTRA_ARGUMENTS, KINDS, PATHS, SERVER_PATHS


class ServeGroup(TyperGroup):
    """A group that is a command too, and whose options set keys of a run's schema."""

    def get_help(self, ctx: Any) -> str:
        """The whole help text."""
        _describe(self.params)
        return super().get_help(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep what comes behind `--` for the engine's server program."""
        if "--" in args and args[0] not in self.commands:
            place = args.index("--")
            ctx.meta[EXTRA_ARGUMENTS] = args[place + 1 :]
            args = args[:place]
        return super().parse_args(ctx, args)


class ServeCommand(TyperCommand):
    """A command whose options set keys of a run's schema."""

    def get_help(self, ctx: Any) -> str:
        """The whole help text."""
        _describe(self.params)
        return super().get_help(ctx)


def _describe(parameters: Any) -> None:
    from llmkit.config.servers import ServerEngineConfig
    from llmkit.config.serving import ServeRun

    describe_options(parameters, ServeRun, PATHS, KINDS)
    describe_options(parameters, ServerEngineConfig, SERVER_PATHS, {})
