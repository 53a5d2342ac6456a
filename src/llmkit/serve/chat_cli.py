"""Talk to a model in the terminal: of a running server, or one that this command loads."""

from typing import Annotated

import typer

from llmkit.config import flags
from llmkit.serve import options
from llmkit.serve.help import ServeCommand

EXAMPLES = """\b
Examples:
  llmkit chat                                        the embedded tiny model
  llmkit chat --model DIR --system "Answer in one sentence."
  llmkit chat --url http://127.0.0.1:8000 --api-key KEY
  llmkit chat --model DIR --prompt "What is 6 times 7?"
  echo "What is 6 times 7?" | llmkit chat --model DIR
"""

app = typer.Typer(pretty_exceptions_enable=False, help=__doc__)


@app.command(cls=ServeCommand, epilog=EXAMPLES)
def chat(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", show_default=False, help="A running server with OpenAI's API; else one is loaded here."
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", envvar="LLMKIT_API_KEY", show_default=False, help="For a server that needs one."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", show_default=False, help="Say this, print the answer, and stop.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", show_default=False, help="Instructions before the conversation.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="NUMBER", min=0, max=2, show_default=False, help="0 is greedy. [default: 1]")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="TOKENS", min=1, show_default=False, help="Most tokens of an answer.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="NUMBER", show_default=False, help="Repeats the answers.")] = None,
    model: flags.Model = None,
    engine: flags.Engine = None,
    preset: options.Preset = None,
    config: flags.ConfigFiles = None,
    overrides: flags.Overrides = None,
    lora: options.Lora = None,
    chat_template: options.ChatTemplate = None,
    reasoning_parser: options.ReasoningParser = None,
    dtype: options.Dtype = None,
    device: flags.Device = None,
    threads: flags.Threads = None,
) -> None:
    """Talk to a model in the terminal.

    In the conversation, /reset forgets it, /system TEXT sets instructions, /help says more, /exit leaves.
    """
    from llmkit.errors import ConfigError
    from llmkit.serve.chat import Settings, converse
    from llmkit.serve.cli import resolve_run
    from llmkit.serve.extra import check_extra

    check_extra()
    said = Settings(system, temperature, max_tokens, seed)
    if url is not None:
        local = (
            "engine",
            "preset",
            "config",
            "overrides",
            "lora",
            "chat_template",
            "reasoning_parser",
            "dtype",
            "device",
        )
        for name in (*local, "threads"):
            if ctx.params[name]:
                raise ConfigError(
                    f"{options.flag(name)} is about a model that is loaded here; it has no effect with --url"
                )
        from llmkit.serve.chat_remote import RemoteModel

        converse(lambda: RemoteModel(url, model, api_key), said, prompt)
        return
    # No port, no keys: nobody but this terminal asks.
    resolved = resolve_run({"host": None, "port": None, **ctx.params})
    from llmkit.serve.chat_local import LocalModel

    converse(lambda: LocalModel(resolved.run), said, prompt)
