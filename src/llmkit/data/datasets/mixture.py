"""Several data sets as one: concatenated, or interleaved by weights of rows or tokens."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from llmkit.config.section import PluginKind, PluginSection, Section

if TYPE_CHECKING:
    from llmkit.data.mixtures.mixture_data import Mixture
    from llmkit.data.mixtures.mixture_stream import MixtureStream


class SourceConfig(Section):
    """One source of a mixture."""

    dataset: Annotated[PluginSection, PluginKind("datasets")]
    """Where its rows come from."""
    formatter: Annotated[PluginSection, PluginKind("formatters", "auto")]
    """How a row becomes messages; `auto` finds out from the first rows of this source."""
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Its share, with `strategy=interleave`, is this over the sum of all weights."""
    limit: int | None = Field(None, ge=1)
    """Most rows to take, from the start; unset takes all."""


class Config(Section):
    """Rows of several sources, each with a formatter of its own; the run's formatter has no effect on them."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    """What is mixed. A source may itself be a mixture."""
    strategy: Literal["concatenate", "interleave"] = "concatenate"
    """`concatenate` one source after the other (shuffled together when rows are shuffled); `interleave` by their
    weights, evenly from the first row to the last."""
    weights_by: Literal["rows", "tokens"] = "rows"
    """Whether weights are shares of the rows or of the tokens."""
    stopping: Literal["first_exhausted", "all_exhausted", "without_replacement"] = "all_exhausted"
    """Where an interleaved epoch ends: `first_exhausted` with the source that is through first; `all_exhausted` with
    the one that is through last, the others repeat until then; `without_replacement` when every row was given once:
    sources that are through leave, the others go on."""
    streaming: bool = False
    """Read the sources one row after another, without numbers for the rows; always so when a source is a stream."""


def build(config: Config) -> "Mixture | MixtureStream":
    """Open the sources and choose their formatters.

    Raises:
        DataError: a source cannot be read, has no rows, or its format is not clear.
    """
    from llmkit.data.mixtures.mixture import open_mixture

    return open_mixture(config)
