"""Help of `llmkit rollout`: what options mean and their defaults, read from the schema when help is asked for."""

from typing import Any

from typer.core import TyperGroup

from llmkit.config.options import describe_options
from llmkit.rollout.options import KINDS, PATHS


class RolloutGroup(TyperGroup):
    """A group that is a command too, and whose options set keys of a run's schema."""

    def get_help(self, ctx: Any) -> str:
        """The whole help text."""
        from llmkit.config.rollout import RolloutRun

        describe_options(self.params, RolloutRun, PATHS, KINDS)
        return super().get_help(ctx)
