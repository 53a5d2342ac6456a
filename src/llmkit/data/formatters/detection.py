"""Which installed formatter fits rows, and what to say when none does."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmkit import plugins
from llmkit.errors import PluginError

if TYPE_CHECKING:
    from llmkit.data.contract import Formatter
    from llmkit.types import Row

MARGIN = 0.25
"""How far the best score must be above the next one."""
PROMPT_WORDS = ("prompt", "instruction", "query", "question", "problem", "input")
"""What columns with a prompt are called."""
COMPLETION_WORDS = ("completion", "response", "output", "answer", "target", "targets", "solution")
"""What columns with an answer are called."""
SURE_COMPLETIONS = ("completion", "response", "output", "target", "targets")
"""Those of them that are to be trained; `answer` and `solution` may be what rewards compare with."""


def candidates() -> "dict[str, Formatter]":
    """Every formatter but `auto` with its default options, by name."""
    formatters: dict[str, Formatter] = {}
    for name in plugins.names("formatters"):
        if name == "auto":
            continue
        try:
            plugin = plugins.load("formatters", name)
            formatters[name] = plugin.build(plugin.Config())
        except (PluginError, ValueError):
            # A plugin that cannot be loaded, or needs options, cannot be found by itself; it can still be named.
            continue
    return formatters


def ranked(formatters: "Mapping[str, Formatter]", rows: "Sequence[Row]") -> list[tuple[float, str]]:
    """Scores and names of the formatters that fit at all, best first."""
    scores = ((formatter.score(rows), name) for name, formatter in formatters.items())
    return sorted((pair for pair in scores if pair[0] > 0), key=lambda pair: (-pair[0], pair[1]))


def close_to_best(ranking: Sequence[tuple[float, str]]) -> list[str]:
    """The best formatter, and those that are not clearly behind it."""
    return [name for score, name in ranking if score > ranking[0][0] - MARGIN]


def looks_like(row: "Row") -> str | None:
    """The one format that a row looks like; None when it looks like none, or like several."""
    ranking = ranked(candidates(), [row])
    close = close_to_best(ranking)
    return close[0] if len(close) == 1 else None


def proposal(row: "Row") -> str:
    """The options for rows that fit no format, with the row's own columns in them where their names give a hint."""
    prompts = [column for column in PROMPT_WORDS if row.values.get(column)]
    completions = [column for column in COMPLETION_WORDS if row.values.get(column)]
    prompt = prompts[0] if prompts else "..."
    completion = completions[0] if completions else "..."
    words = (
        "Choose one and name its columns: --set formatter.name=prompt_completion "
        f"--set formatter.prompt_column={prompt} --set formatter.completion_column={completion}"
    )
    if len(prompts) > 1 or len(completions) > 1:
        several = [found for found in (prompts, completions) if len(found) > 1]
        words += f" (or another of {'; '.join(', '.join(found) for found in several)})"
    return words
