"""What users may be made to wait (service level objectives), and how many requests kept to it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from llmkit.bench.load import Sent
from llmkit.errors import ConfigError

NAMES = ("ttft", "itl", "e2e")


@dataclass(frozen=True)
class Goals:
    """Most seconds of each wait; None sets no limit.

    Attributes:
        ttft: to the first token.
        itl: between tokens, on average over a completion.
        e2e: to the last token.
    """

    ttft: float | None = None
    itl: float | None = None
    e2e: float | None = None

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.ttft, self.itl, self.e2e))

    def met_by(self, sent: Sent) -> bool:
        """Whether a request succeeded and kept to all of them."""
        if sent.error is not None:
            return False
        waits = ((self.ttft, sent.first_seconds), (self.itl, sent.between_seconds), (self.e2e, sent.seconds))
        return all(limit is None or wait is None or wait <= limit for limit, wait in waits)

    def figures(self, sent: Iterable[Sent], seconds: float) -> Mapping[str, float]:
        """Requests a second that kept to the goals, and their share of all; nothing without goals."""
        if not self:
            return {}
        met = [self.met_by(one) for one in sent]
        return {"goodput_requests_per_second": sum(met) / seconds, "goodput_share": sum(met) / len(met)}


def parse_goals(texts: Iterable[str]) -> Goals:
    """`ttft=0.5`: seconds by the name of a wait.

    Raises:
        ConfigError: a name is not known or given twice, or the number is none above 0.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in NAMES or name in found:
            raise ConfigError(f"--slo {text}: give each of {', '.join(NAMES)} once at most, such as ttft=0.5 (seconds)")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = 0.0
        if not found[name] > 0:
            raise ConfigError(f"--slo {text}: give seconds above 0, such as {name}=0.5")
    return Goals(**found)
