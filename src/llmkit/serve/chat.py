"""`llmkit chat`: lines in, answers out as they are drawn."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from llmkit.errors import ConfigError, LLMKitError

HELP = """\
/reset         forget the conversation
/system TEXT   instructions before the conversation; without a text, none
/set NAME N    temperature, max_tokens or seed from now on; N may be `none`
/retry         draw the last answer again
/exit          leave; so does Ctrl-D. Ctrl-C stops an answer
Anything else is said to the model; a line that ends with \\ goes on in the next one."""
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters: a model may draw those that clear a screen."""


@dataclass(frozen=True)
class Settings:
    """How to ask.

    Attributes:
        system: instructions before the conversation.
        temperature: None is the server's default.
        max_tokens: most tokens of an answer.
        seed: repeats the answers.
    """

    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


class Said(Protocol):
    """A model to talk to."""

    async def open(self) -> str:
        """Make it ready.

        Returns: what it is called.
        """
        ...

    def answer(self, messages: list[dict[str, str]], settings: Settings) -> AsyncGenerator[tuple[str, bool]]:
        """Pieces of the answer, each with whether it is a thought."""
        ...

    async def close(self) -> None:
        """Free it."""
        ...


@dataclass
class Conversation:
    """What was said."""

    settings: Settings
    turns: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    @property
    def messages(self) -> list[dict[str, str]]:
        """Everything, the instructions first."""
        system = self.settings.system
        return ([{"role": "system", "content": system}] if system else []) + self.turns


def converse(make: Callable[[], Said], settings: Settings, prompt: str | None) -> None:
    """Talk until the user leaves, or say one thing: `prompt`, or what comes through a pipe.

    Raises:
        LLMKitError: the model cannot be had, or does not answer.
    """
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
        if not prompt:
            raise ConfigError("there is nothing to say: standard input is empty; give --prompt TEXT")
    asyncio.run(_converse(make(), Conversation(settings), prompt))


async def _converse(model: Said, conversation: Conversation, prompt: str | None) -> None:
    name = await model.open()
    try:
        if prompt is not None:
            conversation.turns.append({"role": "user", "content": prompt})
            await _answer(model, conversation)
            return
        _tell(f"Talking to {name}. /help says what else there is.")
        while (line := await asyncio.to_thread(_read)) is not None:
            if not await _take(model, conversation, line):
                return
    finally:
        await model.close()


async def _take(model: Said, conversation: Conversation, line: str) -> bool:
    """Do what a line says; whether the conversation goes on."""
    if line.startswith("/"):
        command, _, rest = line.partition(" ")
        if command in ("/exit", "/quit"):
            return False
        if command != "/retry":
            _tell(_command(conversation, command, rest.strip()))
            return True
        if not (conversation.turns and conversation.turns[-1]["role"] == "assistant"):
            _tell("There is no answer to draw again.")
            return True
        conversation.turns.pop()
    elif line.strip():
        conversation.turns.append({"role": "user", "content": line})
    else:
        return True
    try:
        await _answer(model, conversation)
    except LLMKitError as error:  # the conversation goes on without what could not be answered
        conversation.turns.pop()
        _tell(f"error: {error}")
    return True


def _command(conversation: Conversation, command: str, rest: str) -> str:
    """Do a command; what to tell about it."""
    if command == "/help":
        return HELP
    if command == "/reset":
        conversation.turns.clear()
        return "The conversation is forgotten."
    if command == "/system":
        conversation.settings = replace(conversation.settings, system=rest or None)
        return "The instructions are set." if rest else "There are no instructions now."
    if command == "/set":
        name, _, value = rest.partition(" ")
        kinds: dict[str, Callable[[str], Any]] = {"temperature": float, "max_tokens": int, "seed": int}
        with suppress(KeyError, ValueError):
            chosen: dict[str, Any] = {name: None if value == "none" else kinds[name](value)}
            conversation.settings = replace(conversation.settings, **chosen)
            return f"{name} is {value}."
        return f"/set {rest}: give one of {', '.join(kinds)} and a number, or `none`"
    return f"There is no {command}. /help says what there is."


async def _answer(model: Said, conversation: Conversation) -> None:
    """Print the answer as it comes and remember it; Ctrl-C keeps what came."""
    content, was_thought = "", False
    answer = model.answer(conversation.messages, conversation.settings)
    task = asyncio.current_task()
    assert task is not None
    with _interruptible(task) as interrupted:
        try:
            async for piece, is_thought in answer:
                if is_thought != was_thought:
                    _show("\n\n" if was_thought else "", dim=False)
                    was_thought = is_thought
                content += "" if is_thought else piece
                _show(piece, dim=is_thought)
        except asyncio.CancelledError:
            if not interrupted:
                raise
            task.uncancel()
        finally:
            await answer.aclose()
            print(flush=True)
    conversation.turns.append({"role": "assistant", "content": content})


@contextmanager
def _interruptible(task: "asyncio.Task[Any]") -> Any:
    """Let Ctrl-C cancel a task and nothing else; the list that is given has an item once it did."""
    interrupted: list[bool] = []

    def interrupt() -> None:
        interrupted.append(True)
        task.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _show(text: str, *, dim: bool) -> None:
    safe = UNSAFE.sub(lambda found: f"\\x{ord(found.group()):02x}", text)
    if dim and sys.stdout.isatty():
        safe = f"\x1b[2m{safe}\x1b[0m"
    print(safe, end="", flush=True)


def _read() -> str | None:
    """What the user types; None at the end."""
    lines: list[str] = []
    try:
        import readline  # noqa: F401 - gives `input` a history and editing keys

        while True:
            lines.append(input("> " if not lines else "  "))
            if not lines[-1].endswith("\\"):
                return "\n".join(lines)
            lines[-1] = lines[-1][:-1]
    except EOFError:
        return "\n".join(lines) if lines else None


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
