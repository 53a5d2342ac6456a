"""A chart as inline SVG. Colours come from the page's style, so it follows light and dark mode."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from llmkit.formatting import format_number
from llmkit.train.report.charts import SMOOTH_FROM, Chart, Point, Series, smooth, thin_out, ticks, value_range

WIDTH, HEIGHT = 400, 220
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 10, 26


@dataclass(frozen=True)
class Scale:
    """From values to places in the drawing."""

    low: Point
    high: Point

    def x(self, step: float) -> float:
        span = self.high[0] - self.low[0] or 1.0
        return round(LEFT + (step - self.low[0]) / span * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        span = self.high[1] - self.low[1]
        return round(TOP + (self.high[1] - value) / span * (HEIGHT - TOP - BOTTOM), 1)

    def place(self, point: Point) -> str:
        return f"{self.x(point[0])},{self.y(point[1])}"


def figure(chart: Chart) -> str:
    """The chart with its heading, its legend and a sentence that says what it shows."""
    summary = "; ".join(describe(series) for series in chart.series)
    legend = "".join(
        f'<li><span class="key {tone(series, index)}"></span>{escape(series.label)} '
        f"<b>{format_number(series.points[-1][1])}</b></li>"
        for index, series in enumerate(chart.series)
    )
    return (
        f'<figure class="card chart"><h3>{escape(chart.title)}</h3><ul class="legend">{legend}</ul>'
        f"{drawing(chart, f'{chart.title}. {summary}')}<figcaption>{escape(summary)}</figcaption></figure>"
    )


def describe(series: Series) -> str:
    """`reward mean from 0.12 (step 1) to 0.86 (step 300), highest 0.88`."""
    (first_step, first), (last_step, last) = series.points[0], series.points[-1]
    if len(series.points) == 1:
        return f"{series.label} {format_number(first)} (step {first_step:.0f})"
    values = [value for _, value in series.points]
    return (
        f"{series.label} from {format_number(first)} (step {first_step:.0f}) to {format_number(last)} "
        f"(step {last_step:.0f}), lowest {format_number(min(values))}, highest {format_number(max(values))}"
    )


def drawing(chart: Chart, description: str) -> str:
    """The SVG element. `data-series` holds the points for the page's pointer read-out."""
    steps = [step for series in chart.series for step, _ in series.points]
    low, high = value_range(chart)
    scale = Scale((min(steps), low), (max(steps), high))
    parts = [*grid(scale), *(part for i, series in enumerate(chart.series) for part in curve(series, i, scale))]
    data = [[series.label, [[step, float(f"{value:.5g}")] for step, value in thin_out(series.points)]]
            for series in chart.series]  # fmt: skip
    frame = json.dumps([scale.low[0], scale.high[0], LEFT, WIDTH - RIGHT])
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description, quote=True)}" '
        f'data-series="{escape(json.dumps(data), quote=True)}" data-frame="{frame}">{"".join(parts)}'
        f'<line class="pointer" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>'
    )


def grid(scale: Scale) -> Iterator[str]:
    """Lines and numbers along both axes."""
    for value in ticks(scale.low[1], scale.high[1]):
        y = scale.y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{short(value)}</text>'
    if scale.low[0] == scale.high[0]:
        yield f'<text x="{LEFT}" y="{HEIGHT - 8}">step {scale.low[0]:.0f}</text>'
        return
    whole = [step for step in ticks(scale.low[0], scale.high[0], 5) if step == int(step)]
    for step in whole:
        yield f'<text x="{scale.x(step)}" y="{HEIGHT - 8}" text-anchor="{anchor(scale, step)}">{step:,.0f}</text>'


def anchor(scale: Scale, step: float) -> str:
    """Keep the last number inside the drawing."""
    return "end" if scale.x(step) > WIDTH - RIGHT - 14 else "middle"


def curve(series: Series, index: int, scale: Scale) -> Iterator[str]:
    """Dots and a line for few points; for many a pale line with a smoothed one over it."""
    kind = tone(series, index)
    if len(series.points) < SMOOTH_FROM:
        if len(series.points) > 1:
            yield polyline(series.points, kind, scale)
        if series.held_out or len(series.points) == 1:
            yield from dots(series.points, kind, scale)
        return
    yield polyline(thin_out(series.points), f"{kind} raw", scale)
    yield polyline(thin_out(smooth(series.points)), kind, scale)


def polyline(points: Sequence[Point], kind: str, scale: Scale) -> str:
    return f'<polyline class="{kind}" points="{join(scale.place, points)}"/>'


def dots(points: Iterable[Point], kind: str, scale: Scale) -> Iterator[str]:
    for step, value in points:
        yield f'<circle class="{kind}" cx="{scale.x(step)}" cy="{scale.y(value)}" r="3"/>'


def join(place: Callable[[Point], str], points: Iterable[Point]) -> str:
    return " ".join(place(point) for point in points)


def tone(series: Series, index: int) -> str:
    """Style class: training and held-out figures have the same colours in every chart."""
    if series.held_out:
        return "held-out"
    return "training" if index == 0 else "other"


def short(value: float) -> str:
    """A tick's number in few characters: `0.25`, `1.2k`, `2e-06`."""
    if abs(value) >= 10_000:
        return f"{value / 1000:,.6g}k" if abs(value) < 1e6 else f"{value:.3g}"
    return "0" if value == 0 else f"{value:.6g}"
