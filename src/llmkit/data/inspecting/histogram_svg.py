"""A histogram as inline SVG. Colours come from the page's style, so it follows light and dark mode."""

from collections.abc import Sequence

from llmkit.data.inspecting.histogram import Bin
from llmkit.html import text

WIDTH, BAR, GAP, LEFT, RIGHT = 640, 16, 6, 120, 80


def drawing(bins: Sequence[Bin]) -> str:
    """A bar for each bin, its lengths to the left and its count to the right."""
    most = max(bin.count for bin in bins)
    height = len(bins) * (BAR + GAP)
    told = "; ".join(f"{bin.label}: {bin.count:,}" for bin in bins)
    bars = "".join(
        f"<g><title>{bin.count:,} sequences of {bin.label} tokens</title>"
        f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end">{bin.label}</text>'
        f'<rect x="{LEFT}" y="{top}" width="{width}" height="{BAR}" rx="2"/>'
        f'<text x="{LEFT + width + 8}" y="{top + 12}">{bin.count:,}</text></g>'
        for bin, top, width in (
            (bin, row * (BAR + GAP), round((WIDTH - LEFT - RIGHT) * bin.count / most, 1))
            for row, bin in enumerate(bins)
        )
    )
    label = text(f"Tokens per sequence: {told}")
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{bars}</svg>'
