"""Rows and figures as text: trained tokens coloured on a terminal, between guillemets elsewhere."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from rich.console import Console
from rich.text import Text

from llmkit.data.contract import Ordered
from llmkit.data.inspecting.figures_text import figure_lines
from llmkit.data.inspecting.labelling import TEMPLATE
from llmkit.data.inspecting.looking import Findings
from llmkit.data.inspecting.plain import plain
from llmkit.data.inspecting.viewing import RowView, SequenceView, Token

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that clear a screen, change its colours, or cannot be printed."""
GUILLEMETS = re.compile("[«»]")
MASKED, SPECIAL = "dim", "dim cyan"


def result_console() -> Console:
    """Rich on standard output, without any markup or wrapping of its own."""
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_findings(findings: Findings, *, raw: bool, tokens: bool) -> None:
    """Print rows and figures on standard output, and what to look at on standard error."""
    console = result_console()
    note(describe_subject(findings))
    if isinstance(findings.subject.data, Ordered):
        note("The data set draws from its sources by weights; here every row counts once.")
    for warning in ("" if findings.keeps_turns else findings.template, findings.hint):
        if warning:
            warn(warning)
    for view in findings.views:
        print_row(console, view, raw=raw, tokens=tokens)
    if findings.figures is not None:
        for line in figure_lines(findings.figures):
            console.print(Text(visible(line)))


def describe_subject(findings: Findings) -> str:
    """What was looked at, with what."""
    subject = findings.subject
    total = "" if subject.num_rows is None else f" of {_several(subject.num_rows, 'row')}"
    read = "" if findings.figures is None else f"; figures of {_several(findings.figures.counts.rows, 'row')}"
    return (
        f"{subject.command}: dataset '{subject.run.dataset.name}'{total}, formatter '{subject.formatter_name}', "
        f"tokenizer of {subject.model.tokenizer or subject.model.path}{read}"
    )


def warn(message: str) -> None:
    """Tell what the user should look at."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def note(message: str) -> None:
    """Tell what is going on."""
    print(message, file=sys.stderr, flush=True)


def print_row(console: Console, view: RowView, *, raw: bool = False, tokens: bool = False) -> None:
    """Print one row.

    Args:
        console: where to.
        view: the row.
        raw: also what was read, and the record that was made of it.
        tokens: a line for each token in place of the text.
    """
    console.print(Text(f"row {view.number}  {view.source}  {describe_row(view)}", style="bold"))
    if view.reason:
        console.print(
            Text(f"{view.outcome}: {visible(view.reason)}", style="red" if view.outcome == "faulty" else "yellow")
        )
    for sequence in view.sequences:
        _print_sequence(console, sequence, tokens=tokens)
    if view.roles:
        console.print(Text(f"  {'; '.join(role_lines(view))}", "dim"))
    if raw:
        _print_raw(console, view)
    console.print()


def describe_row(view: RowView) -> str:
    """`27 tokens, 9 train (33%)`; empty for a row without tokens."""
    if not view.sequences:
        return ""
    if view.sequences[0].name == "prompt":
        return f"prompt of {view.num_tokens} tokens"
    return _counts(view.num_tokens, view.num_trained)


def role_lines(view: RowView) -> list[str]:
    """`assistant 9 tokens in 1 message, 9 train`, for each role."""
    return [
        f"{role} {counts.tokens} tokens" + (f" in {_several(counts.messages, 'message')}" if counts.messages else "")
        + (f", {counts.trained_tokens} train" if counts.trained_tokens else "")
        for role, counts in view.roles.items()
    ]  # fmt: skip


def visible(text: str, *, guillemets: bool = False) -> str:
    """`text` with control characters, other than tab and newline, spelled out, and guillemets where those are marks."""
    shown = CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)
    return GUILLEMETS.sub(lambda found: f"\\x{ord(found.group()):02x}", shown) if guillemets else shown


def blocks(tokens: Sequence[Token]) -> list[tuple[str, list[Token]]]:
    """The tokens message by message: the role, then what the template puts before the message and the message itself.

    White space that the template puts after a message stays with it.
    """
    found: list[tuple[str, list[Token]]] = []
    before: list[Token] = []
    for message, group in groupby(tokens, key=lambda token: token.message):
        run = list(group)
        if message:
            found.append((run[0].role, before + run))
            before = []
            continue
        blank = 0
        while found and blank < len(run) and not run[blank].is_special and not run[blank].piece.strip():
            blank += 1
        if blank:
            found[-1][1].extend(run[:blank])
        before = run[blank:]
    if before:
        found.append((TEMPLATE if found else before[0].role, before))
    return found


def _print_sequence(console: Console, sequence: SequenceView, *, tokens: bool) -> None:
    if sequence.name in ("chosen", "rejected"):
        console.print(Text(f"{sequence.name}: {_counts(len(sequence.tokens), sequence.num_trained)}", style="bold"))
    if sequence.fault:
        console.print(Text(f"messages are not told apart: {visible(sequence.fault)}", style="yellow"))
    if sequence.num_cut_before:
        console.print(Text(f"[{sequence.num_cut_before} tokens are cut off before this]", style="yellow"))
    for role, block in blocks(sequence.tokens):
        console.print(Text(f"  {role} · {_counts(len(block), sum(token.weight != 0 for token in block))}", "cyan"))
        if tokens:
            for token in block:
                console.print(_token_line(token))
        else:
            text = marked(block, colours=console.is_terminal)
            console.print(text, end="" if text.plain.endswith("\n") else "\n")
    if sequence.num_cut_after:
        console.print(Text(f"[{sequence.num_cut_after} tokens are cut off after this]", style="yellow"))


def marked(tokens: Sequence[Token], *, colours: bool) -> Text:
    """Text with what trains marked: by colours, or as `«text»`, with `×0.5` behind it when the weight is not 1."""
    text = Text()
    for weight, group in groupby(tokens, key=lambda token: token.weight):
        run = list(group)
        if colours:
            for token in run:
                text.append(visible(token.piece), style=token_style(token))
            continue
        shown = visible("".join(token.piece for token in run), guillemets=True)
        text.append(shown if not weight else f"«{shown}»" + ("" if weight == 1 else f"×{weight:g}"))
    return text


def token_style(token: Token) -> str:
    """Style of a token on a terminal: bold green trains, other colours train with another weight."""
    if not token.weight:
        return SPECIAL if token.is_special else MASKED
    if token.weight == 1:
        return "bold green"
    return "bold yellow" if token.weight < 1 else "bold magenta"


def _token_line(token: Token) -> Text:
    line = Text(f"    {token.id:>7}  {token.weight:<4g}  ", style=token_style(token))
    return line.append(visible(json.dumps(token.piece, ensure_ascii=False)) + ("  special" if token.is_special else ""))


def _print_raw(console: Console, view: RowView) -> None:
    if view.raw is not None:
        console.print(Text("  as it was read", "cyan"))
        console.print(visible(as_json(view.raw)))
    if view.record is not None:
        console.print(Text("  as a record", "cyan"))
        console.print(visible(as_json(_without_empty(asdict(view.record)))))


def _without_empty(value: object) -> object:
    """The same without what is not set."""
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item not in (None, (), [], {})}
    return [_without_empty(item) for item in value] if isinstance(value, list | tuple) else value


def as_json(value: object) -> str:
    """Any value as indented JSON; what JSON does not know as text."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False)


def _counts(num_tokens: int, num_trained: int) -> str:
    if not num_trained:
        return f"{num_tokens} tokens"
    return f"{num_tokens} tokens, {num_trained} train ({num_trained / num_tokens:.0%})"


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"
