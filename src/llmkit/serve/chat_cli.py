"""Talk to a model in the terminal."""

import typer

app = typer.Typer(help=__doc__)
