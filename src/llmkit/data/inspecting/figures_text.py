"""The figures of a set as lines of text."""

from collections.abc import Iterable, Iterator, Sequence

from llmkit.data.inspecting.duplicates import Repeats
from llmkit.data.inspecting.faults import Group
from llmkit.data.inspecting.histogram import Bin
from llmkit.data.inspecting.tally import Figures
from llmkit.formatting import format_number

BAR = 40
MOST_TURNS = 6


def figure_lines(figures: Figures) -> Iterator[str]:
    """Everything, section by section."""
    for title, rows in sections(figures):
        yield title
        yield from align(rows)
        yield ""
    if figures.histogram:
        yield "Tokens per sequence"
        yield from histogram_lines(figures.histogram)
        yield ""
    for title, repeats in repeated(figures):
        yield f"{title}: {repeats.rows:,} rows in {repeats.groups:,} group{'s' if repeats.groups > 1 else ''}"
        yield from (f"  {' = '.join(places)}" for places in repeats.examples)
        yield ""
    if figures.not_as_they_were:
        yield "Rows that are not trained on as they are"
        for group in figures.not_as_they_were:
            yield from group_lines(group)
        yield ""


def sections(figures: Figures) -> Iterator[tuple[str, list[Sequence[str]]]]:
    """Title and rows of each table; empty tables are left out."""
    yield "Rows", _row_counts(figures)
    yield "Tokens", _token_counts(figures)
    if figures.lengths is not None:
        lengths = figures.lengths
        names = ("min", "median", "mean", "p95", "p99", "max")
        yield "Lengths", [names, [format_number(getattr(lengths, name)) for name in names]]
    if figures.packing is not None:
        packing = figures.packing
        rows: list[Sequence[str]] = [
            ("tokens of a bin", format_number(packing.capacity)),
            ("bins", format_number(packing.num_bins)),
            ("of their room filled", f"{packing.fill:.1%}"),
        ]
        if packing.num_longer:
            rows.append(("longer than a bin", format_number(packing.num_longer)))
        yield "Packing, if batch.packing=best_fit", rows
    if any(figures.turns):
        yield "Answers of the assistant per row", _turns(figures.turns)
    if figures.features:
        yield "Rows with", [(name, format_number(count)) for name, count in figures.features.items()]
    if figures.columns:
        yield "Extra columns", [(name, format_number(count)) for name, count in figures.columns.items()]


def repeated(figures: Figures) -> Iterator[tuple[str, Repeats]]:
    """Kinds of repetition that were found."""
    if figures.duplicates.groups:
        yield "The same tokens", figures.duplicates
    if figures.answered_differently.groups:
        yield "The same prompt with different answers", figures.answered_differently


def histogram_lines(bins: Sequence[Bin]) -> list[str]:
    """A bar for each bin."""
    most = max(bin.count for bin in bins)
    rows = [(bin.label, f"{bin.count:,}", "█" * -(-bin.count * BAR // most)) for bin in bins]
    left, middle = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"  {label:>{left}}  {count:>{middle}}  {bar}".rstrip() for label, count, bar in rows]


def group_lines(group: Group) -> Iterator[str]:
    """How many, why, and the first places."""
    yield f"  {group.count:,} {group.outcome}: {group.reason}"
    if group.places:
        more = f" and {group.count - len(group.places):,} more" if group.count > len(group.places) else ""
        yield f"    {', '.join(group.places)}{more}"


def align(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Cells in columns: the first to the left, the others to the right."""
    rows = [list(map(str, row)) for row in rows]
    columns = max(map(len, rows), default=0)
    widths = [max((len(row[column]) for row in rows if column < len(row)), default=0) for column in range(columns)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=False))]
        yield "  " + "  ".join(cells).rstrip()


def _row_counts(figures: Figures) -> list[Sequence[str]]:
    counts = figures.counts
    rows = [("read", format_number(counts.rows)), ("trained on", format_number(figures.kept))]
    for what, count in (
        ("of them truncated", counts.truncated),
        ("of them split", counts.split),
        ("dropped, too long", counts.dropped),
        ("dropped, trains nothing", counts.untrained),
        ("faulty", counts.skipped),
    ):
        if count:
            rows.append((what, format_number(count)))
    return list(rows)


def _token_counts(figures: Figures) -> list[Sequence[str]]:
    counts = figures.counts
    rows: list[Sequence[str]] = [("", "messages", "tokens", "trained", "share")]
    for role, count in figures.roles.items():
        messages = format_number(count.messages) if count.messages else ""
        rows.append((role, messages, *_tokens(count.tokens, count.trained_tokens)))
    rows.append(("all", "", *_tokens(counts.tokens, counts.trained_tokens)))
    if figures.tokens_cut:
        rows.append(("cut off", "", format_number(figures.tokens_cut)))
    # Nothing of a prompt trains, which needs no columns to say.
    return rows if counts.trained_tokens else [row[:3] for row in rows]


def _tokens(tokens: int, trained: int) -> tuple[str, str, str]:
    return format_number(tokens), format_number(trained), f"{trained / tokens:.1%}" if tokens else ""


def _turns(turns: dict[int, int]) -> list[Sequence[str]]:
    few = [(format_number(count), format_number(rows)) for count, rows in turns.items() if count < MOST_TURNS]
    many = sum(rows for count, rows in turns.items() if count >= MOST_TURNS)
    return [*few, (f"{MOST_TURNS} or more", format_number(many))] if many else list(few)
