"""Help of the training commands: what each option means and its default, drawn from the schema when help is asked for."""

from typing import Any

import typer
from typer.core import TyperCommand

from llmkit import plugins
from llmkit.train.options import KINDS, PATHS


class TrainCommand(TyperCommand):
    """A command whose options set keys of a run's schema."""

    def get_help(self, ctx: typer.Context) -> str:
        """The whole help text."""
        self._describe_options(f"train/{ctx.info_name}")
        return super().get_help(ctx)

    def _describe_options(self, command: str) -> None:
        from llmkit.config.docs import describe
        from llmkit.config.runs import schema_of

        schema = schema_of(command)
        for parameter in self.params:
            path = PATHS.get(parameter.name or "")
            if path is None or parameter.name == "dataset_path":
                continue
            option: Any = parameter
            section = path.removesuffix(".name") if parameter.name in KINDS else path
            option.help = _sentence(describe(schema, section), KINDS.get(parameter.name or ""))


def _sentence(field: Any, kind: str | None) -> str:
    parts = [field.help]
    if kind:
        parts.append(f"Installed: {', '.join(plugins.names(kind))}.")
    if field.default is not None:
        parts.append(f"[default: {field.default}]")
    return " ".join(part for part in parts if part)
