"""Help of the training commands: what options mean and their defaults, read from the schema when help is asked for."""

from typing import Any

from typer.core import TyperCommand

from llmkit import plugins
from llmkit.train.options import KINDS, PATHS


class TrainCommand(TyperCommand):
    """A command whose options set keys of a run's schema."""

    def get_help(self, ctx: Any) -> str:
        """The whole help text."""
        self._describe_options(f"train/{ctx.info_name}")
        return super().get_help(ctx)

    def _describe_options(self, command: str) -> None:
        from llmkit.config.docs import describe
        from llmkit.config.runs import schema_of

        schema = schema_of(command)
        for parameter in self.params:
            option: Any = parameter
            path = PATHS.get(option.name)
            if path is None or option.help:
                continue
            kind = KINDS.get(option.name)
            field = describe(schema, path.removesuffix(".name"))
            installed = f" One of: {', '.join(plugins.names(kind))}." if kind else ""
            default = f" [default: {field.default}]" if field.default not in (None, [], ()) else ""
            option.help = f"{field.help}{installed}{default}"
