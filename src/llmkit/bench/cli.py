"""Measure this machine at what training and serving do with it, side by side with other libraries."""

import typer

from llmkit.bench import (
    converting_cli,
    data_cli,
    generation_cli,
    report_cli,
    serving_cli,
    startup_cli,
    training_cli,
    weights_cli,
)

COMMANDS = (data_cli, generation_cli, serving_cli, startup_cli, training_cli, weights_cli, converting_cli, report_cli)
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
for _commands in COMMANDS:
    _commands.register(app)


@app.callback()
def bench() -> None:
    """Measure this machine at what training and serving do with it, side by side with other libraries."""
