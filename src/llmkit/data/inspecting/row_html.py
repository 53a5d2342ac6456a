"""One row as HTML: a span for each token, which tells its id, weight and piece under the pointer."""

import json

from llmkit.data.inspecting.printing import as_json, blocks, describe_row, role_lines
from llmkit.data.inspecting.viewing import RowView, SequenceView, Token
from llmkit.html import text


def article(view: RowView) -> str:
    """The row with its heading, its sequences and what it was made of."""
    kind = "" if view.outcome == "kept" else " problem"
    badge = {"kept": "right", "faulty": "wrong"}.get(view.outcome, "interrupted")
    reason = f'<p class="reason">{text(view.reason)}</p>' if view.reason else ""
    roles = f'<p class="muted">{text("; ".join(role_lines(view)))}</p>' if view.roles else ""
    sides = "".join(sequence_html(sequence) for sequence in view.sequences)
    return (
        f'<article class="card row{kind}"><div class="head"><h3>row {view.number:,}</h3>'
        f'<span class="badge {badge}">{text(view.outcome)}</span><code>{text(view.source)}</code>'
        f'<span class="muted">{text(describe_row(view))}</span></div>{reason}'
        f'<div class="grid pair">{sides}</div>{roles}{details(view)}</article>'
    )


def sequence_html(sequence: SequenceView) -> str:
    """Message by message."""
    name = f"<h4>{text(sequence.name)}</h4>" if sequence.name else ""
    fault = f'<p class="reason">messages are not told apart: {text(sequence.fault)}</p>' if sequence.fault else ""
    before, after = cut(sequence.num_cut_before, "before"), cut(sequence.num_cut_after, "after")
    turns = "".join(
        f'<div class="turn"><div class="role">{text(role)} · {len(block)}</div>'
        f"<pre>{''.join(map(token_html, block))}</pre></div>"
        for role, block in blocks(sequence.tokens)
    )
    return f'<div class="sequence">{name}{fault}{before}{turns}{after}</div>'


def token_html(token: Token) -> str:
    """One token; what trains is coloured."""
    classes = ["t"]
    if token.weight:
        classes.append("w" if token.weight == 1 else "less" if token.weight < 1 else "more")
    if token.is_special:
        classes.append("s")
    piece = json.dumps(token.piece, ensure_ascii=False)
    told = f"id {token.id} · weight {token.weight:g} · {token.role} · {piece}"
    return f'<span class="{" ".join(classes)}" title="{text(told)}">{text(token.piece)}</span>'


def cut(count: int, where: str) -> str:
    """How much is missing at one end."""
    return f'<p class="reason">✂ {count:,} tokens are cut off {where} this</p>' if count else ""


def details(view: RowView) -> str:
    """What was read, to be opened on demand."""
    if view.raw is None:
        return ""
    return f"<details><summary>as it was read</summary><pre>{text(as_json(view.raw))}</pre></details>"
