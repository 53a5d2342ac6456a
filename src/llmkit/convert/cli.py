"""Convert data sets and models from one form to another; nothing is written that was not checked."""

import typer

from llmkit.convert import adapter_cli, checkpoint_cli, dataset_cli, merge_cli

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
merge_cli.register(app)
dataset_cli.register(app)
checkpoint_cli.register(app)
adapter_cli.register(app)


@app.callback()
def convert() -> None:
    """Convert data sets and models from one form to another; nothing is written that was not checked."""
