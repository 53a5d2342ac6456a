"""Rollouts as one HTML file that needs nothing else."""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from llmkit.disk import write_text
from llmkit.formatting import format_number
from llmkit.html import document, text
from llmkit.rollout.telling import rows
from llmkit.rollout.viewing.finding import mean_logprob
from llmkit.rollout.viewing.printing import facts
from llmkit.rollout.viewing.tokens import Token

COLOURS = '<label><input type="checkbox" id="coloured" checked> colour tokens by probability</label>'
CONTROLS = """\
<div class="card filters">
<label>rollouts with the text <input type="search" id="search"></label>
<label>reward from <input type="number" step="any" id="least"></label>
<label>to <input type="number" step="any" id="most"></label>
<label>order <select id="order"><option value="place">as they are</option><option value="-reward">best first</option>
<option value="reward">worst first</option><option value="-length">longest first</option>
<option value="logprob">least likely first</option></select></label>
{colours}<span class="muted" id="count"></span>
</div>
"""
LEGEND = (
    '<p class="muted legend">Likely <span class="t p9">tokens</span> <span class="t p4">have</span> '
    '<span class="t p2">less</span> <span class="t p0">colour</span> than unlikely ones; '
    '<span class="given">dim ones</span> were given, not sampled. Each tells more under the pointer.</p>'
)

Shown = tuple[dict[str, Any], list[Token] | None]


def write_page(path: Path, title: str, lines: Sequence[Shown], summary: Mapping[str, Any], left_out: str) -> None:
    """Write the page.

    Args:
        lines: of rollouts, with their tokens where they are known.
        summary: figures of all rollouts.
        left_out: which rollouts are not on the page, in words; empty when all are.
    Raises:
        TrainingError: the disk is full.
    """
    write_text(path, render(title, lines, summary, left_out))


def render(title: str, lines: Sequence[Shown], summary: Mapping[str, Any], left_out: str) -> str:
    """The page as text."""
    cells = "".join(
        f'<div class="card tile"><div class="name">{text(name)}</div><div class="value">{text(value)}</div></div>'
        for name, value in rows(summary)
    )
    note = f'<p class="muted">{text(left_out)}</p>' if left_out else ""
    colours, legend = (COLOURS, LEGEND) if any(tokens for _, tokens in lines) else ("", "")
    body = (
        f"<header><h1>{text(title)}</h1></header>"
        f'<section><h2>Figures</h2><div class="grid tiles">{cells}</div></section>'
        f"<section><h2>Rollouts</h2>{note}{CONTROLS.format(colours=colours)}{legend}"
        f'<div id="rollouts" class="coloured">{"".join(map(article, lines))}</div></section>'
    )
    style = files("llmkit.data.inspecting").joinpath("page.css").read_text(encoding="utf-8") + resource("page.css")
    return document(title, body, style=style, script=resource("page.js"))


def resource(name: str) -> str:
    """A file of this package."""
    return files("llmkit.rollout.viewing").joinpath(name).read_text(encoding="utf-8")


def article(shown: Shown) -> str:
    """One rollout."""
    line, tokens = shown
    reward, logprob = line["reward"], mean_logprob(line)
    badge = ""
    if reward is not None:
        badge = f'<span class="badge {"right" if reward > 0 else "wrong"}">reward {format_number(reward)}</span>'
    told = " · ".join(fact for fact in facts(line) if not fact.startswith("reward "))
    keys = {"reward": reward, "length": line.get("completion_length"), "logprob": logprob}
    data = "".join(f' data-{name}="{value}"' for name, value in keys.items() if value is not None)
    answer = ""
    if line.get("answer") is not None:
        answer = f'<p class="muted">Reference answer: <code>{text(str(line["answer"]).strip())}</code></p>'
    return (
        f'<article class="card rollout"{data}><div class="head">{badge}<span class="muted">{text(told)}</span></div>'
        f"<details><summary>prompt</summary><pre>{text(line['prompt'])}</pre></details>"
        f"<pre>{completion(line, tokens)}</pre>{answer}</article>"
    )


def completion(line: Mapping[str, Any], tokens: Iterable[Token] | None) -> str:
    """The completion, token by token where they are known."""
    if tokens is None:
        return text(line["completion"])
    return "".join(map(token_html, tokens))


def token_html(token: Token) -> str:
    """One token with what is known of it."""
    piece = json.dumps(token.piece, ensure_ascii=False)
    parts = [f"id {token.id}"]
    style = "t" if token.is_sampled else "given"
    if token.probability is not None:
        parts.append(f"p {token.probability:.3g} · logprob {token.logprob:.4g}")
        style += f" p{min(9, int(10 * token.probability))}"
    parts.append(f"version {token.version}" if token.is_sampled else "given")
    told = text(" · ".join([*parts, piece]))
    return f'<span class="{style}" title="{told}">{text(token.piece)}</span>'
