"""Help of `llmkit serve` and `llmkit chat`: what options mean and their defaults, read from the schema when asked."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

from llmkit.serve.options import PATHS


class ServeGroup(TyperGroup):
    """A group that is a command too, and whose options set keys of a run's schema."""

    def get_help(self, ctx: Any) -> str:
        """The whole help text."""
        describe_options(self.params)
        return super().get_help(ctx)


class ServeCommand(TyperCommand):
    """A command whose options set keys of a run's schema."""

    def get_help(self, ctx: Any) -> str:
        """The whole help text."""
        describe_options(self.params)
        return super().get_help(ctx)


def describe_options(parameters: Any) -> None:
    """Fill in the help of the options that set keys."""
    from llmkit import plugins
    from llmkit.config.docs import describe
    from llmkit.config.serving import ServeRun

    for option in parameters:
        path = PATHS.get(option.name)
        if path is None or option.help:
            continue
        field = describe(ServeRun, path.removesuffix(".name"))
        installed = f" One of: {', '.join(plugins.names('engines'))}." if option.name == "engine" else ""
        default = f" [default: {field.default}]" if field.default not in (None, [], ()) else ""
        option.help = f"{field.help}{installed}{default}"
