"""Make, list and revoke API keys; their hashes are kept, never the keys."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from llmkit.config import flags

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

KeysFile = Annotated[
    Path | None,
    typer.Option(
        "--keys-file",
        metavar="FILE",
        help="Where the hashes are. [default: $LLMKIT_KEYS or ~/.config/llmkit/keys.json]",
    ),
]


@app.callback()
def keys() -> None:
    """Make, list and revoke API keys; their hashes are kept, never the keys."""


@app.command()
def new(
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What the key is for.")] = "",
    keys_file: KeysFile = None,
    as_json: flags.Json = False,
) -> None:
    """Make a key and print it, this once."""
    from llmkit.serve.keys import default_keys_file, new_key

    path = keys_file or default_keys_file()
    key, entry = new_key(path, name)
    if as_json:
        typer.echo(json.dumps({"key": key, "id": entry.id, "name": name, "keys_file": str(path)}, indent=2))
        return
    typer.echo(key)
    typer.echo(f"Key {entry.id}: nobody can show it again. Serve with it: llmkit serve --keys-file {path}", err=True)


@app.command(name="list")
def list_keys(keys_file: KeysFile = None, as_json: flags.Json = False) -> None:
    """Show ids, names and dates."""
    from llmkit.serve.keys import default_keys_file, read_keys

    found = read_keys(keys_file or default_keys_file())
    if as_json:
        typer.echo(json.dumps([{k: v for k, v in asdict(key).items() if k != "sha256"} for key in found], indent=2))
        return
    for key in found:
        typer.echo(f"{key.id}  {key.created}  {key.name}")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id that `list` shows.")],
    keys_file: KeysFile = None,
    as_json: flags.Json = False,
) -> None:
    """Take a key away; running servers refuse it within a second."""
    from llmkit.serve.keys import default_keys_file, revoke_key

    gone = revoke_key(keys_file or default_keys_file(), key_id)
    if as_json:
        typer.echo(json.dumps({"id": gone.id, "name": gone.name, "revoked": True}, indent=2))
    else:
        typer.echo(f"Key {gone.id} ({gone.name or 'without a name'}) is revoked.", err=True)
