"""Rollouts on a terminal; the less likely a token was, the warmer its colour."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from llmkit.formatting import format_number
from llmkit.rollout.viewing.finding import mean_logprob
from llmkit.rollout.viewing.tokens import Token
from llmkit.terminal import visible

STYLES = ((0.5, ""), (0.2, "yellow"), (0.05, "dark_orange"), (0.0, "bold red"))
"""Style of a token that was at least so likely."""
GIVEN = "dim"


def print_rollouts(lines: Sequence[tuple[dict[str, Any], list[Token] | None]], *, whole_prompts: bool) -> None:
    """Print rollouts on standard output; the prompt of a group once while it stays the same.

    Args:
        lines: of rollouts, with their tokens where they are known.
        whole_prompts: also what chat templates put around a question.
    """
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
    prompt = None
    for line, tokens in lines:
        console.print(Text("  ".join(facts(line)), style="bold"))
        shown = line["prompt"] if whole_prompts else question(line)
        if shown != prompt:
            console.print(Text(visible(shown.strip()), style="dim"))
            prompt = shown
        console.print(_completion(line, tokens))
        if line.get("answer") is not None:
            console.print(Text(f"reference: {visible(str(line['answer']).strip())}", style="dim"))
        console.print()


def facts(line: dict[str, Any]) -> Iterator[str]:
    """What is known of a rollout: `group 3/1`, `reward 1`, `48 tokens`, ..."""
    yield f"group {line['group_id']}/{line.get('member', 0)}"
    reward = line["reward"]
    yield "no reward" if reward is None else f"reward {format_number(reward)}"
    named = line.get("rewards") or {}
    if len(named) > 1:
        yield "(" + ", ".join(f"{name} {format_number(value)}" for name, value in named.items()) + ")"
    yield f"{line.get('completion_length', 0):,} tokens"
    if line.get("stop_reason") == "length":
        yield "cut at the limit"
    if (logprob := mean_logprob(line)) is not None:
        yield f"mean logprob {logprob:.3f}"
    if line.get("version_max") is not None:
        first, last = line["version_min"], line["version_max"]
        yield f"version {last}" if first == last else f"versions {first} to {last}"
    if "generation_seconds" in line:
        yield f"{line['generation_seconds']:.2f} s"
    yield line["source"]


def question(line: dict[str, Any]) -> str:
    """The last message of the prompt; the prompt itself where it is no conversation."""
    messages = line.get("messages")
    content = messages[-1].get("content") if messages else None
    return content if isinstance(content, str) else line["prompt"]


def _completion(line: dict[str, Any], tokens: list[Token] | None) -> Text:
    if tokens is None:
        return Text(visible(line["completion"].strip()))
    text = Text()
    for token in tokens:
        text.append(visible(token.piece), style=_style(token))
    return text


def _style(token: Token) -> str:
    if token.probability is None:
        return "" if token.is_sampled else GIVEN
    return next(style for least, style in STYLES if token.probability >= least)
