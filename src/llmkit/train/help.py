"""Help of the training commands: what options mean and their defaults, read from the schema when help is asked for."""

from typing import Any

from typer.core import TyperCommand

from llmkit.config.options import describe_options
from llmkit.train.options import KINDS, PATHS


class TrainCommand(TyperCommand):
    """A command whose options set keys of a run's schema."""

    def get_help(self, ctx: Any) -> str:
        """The whole help text."""
        from llmkit.config.runs import schema_of

        describe_options(self.params, schema_of(f"train/{ctx.info_name}"), PATHS, KINDS)
        return super().get_help(ctx)
