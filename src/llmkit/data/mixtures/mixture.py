"""Open the sources of a mixture."""

import inspect
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmkit import plugins
from llmkit.config.section import PluginSection
from llmkit.data.contract import Dataset, Formatter, Sized, Stream, choose_formatter, first_rows
from llmkit.data.datasets.mixture import Config, SourceConfig
from llmkit.data.mixtures.mixture_data import Mixture
from llmkit.data.mixtures.mixture_source import MixtureRules, MixtureSource, told_by
from llmkit.data.mixtures.mixture_stream import MixtureStream
from llmkit.data.preparing.cache_key import identify
from llmkit.data.row_views import choose_rows, fingerprint_of
from llmkit.data.stream_views import DatasetStream, StreamView
from llmkit.errors import DataError

logger = logging.getLogger(__name__)


def open_mixture(config: Config) -> Mixture | MixtureStream:
    """Build every source with its formatter.

    Returns: a data set; a stream when a source is one or `config` asks for it.
    Raises:
        DataError: a source cannot be read, has no rows, or its format is not clear.
        PluginError: there is no such data set or formatter.
    """
    _warn_of_idle_options(config)
    rules = MixtureRules(
        config.strategy, config.strategy == "interleave" and config.weights_by == "tokens", config.stopping
    )
    sources = [_open(f"dataset.sources.{number}", source) for number, source in enumerate(config.sources)]
    if config.streaming or not all(isinstance(source.data, Sized) for source in sources):
        return MixtureStream([_streamed(source) for source in sources], rules)
    return Mixture(sources, rules)


def _warn_of_idle_options(config: Config) -> None:
    if config.strategy == "interleave":
        return
    idle = [name for name in ("weights_by", "stopping") if getattr(config, name) != Config.model_fields[name].default]
    if len({source.weight for source in config.sources}) > 1:
        idle.append("sources.*.weight")
    for name in idle:
        logger.warning("dataset.%s has no effect with dataset.strategy=concatenate; choose interleave", name)


def _open(place: str, config: SourceConfig) -> MixtureSource[Any]:
    """One source, with the limit put on its rows."""
    try:
        data = _build("datasets", config.dataset)
        if _is_empty(data):
            raise DataError(f"{place}: the source has no rows; take it out")
        formatter = choose_formatter(_build("formatters", config.formatter), data)
        if config.limit is not None:
            data = _first(data, config.limit, place)
    except DataError as error:
        raise told_by(place, error) from None
    return MixtureSource(data, formatter, config.weight, place, _format(formatter))


def _build(kind: str, section: PluginSection) -> Any:
    return plugins.load(kind, section.name).build(section)


def _is_empty(data: Dataset | Stream) -> bool:
    try:
        return not first_rows(data, 1)
    except DataError:
        return False  # there is a row, and whoever trains on it decides what becomes of a faulty one


def _first(data: Dataset | Stream, limit: int, place: str) -> Dataset | Stream:
    """The first `limit` rows, or all when there are fewer."""
    if isinstance(data, Mixture | MixtureStream):
        raise DataError(
            f"{place}.limit: a mixture has no first rows; limit its sources: {place}.dataset.sources.0.limit"
        )
    if isinstance(data, Sized):
        return choose_rows(data, np.arange(min(limit, len(data))), f"the first {limit}")
    return StreamView(data, f"the first {limit}", num_rows=limit)


def _format(formatter: Formatter) -> str | None:
    """What decides how a formatter reads, its code included; None when it cannot be told from another one."""
    identity = identify(formatter)
    file = inspect.getsourcefile(type(formatter))
    if identity is None or file is None:
        return None
    return fingerprint_of(json.dumps(identity), Path(file).read_text(encoding="utf-8"))


def _streamed(source: MixtureSource[Any]) -> MixtureSource[Stream]:
    """A source as a stream; a mixture of data sets as a mixture of streams, so that it keeps its shares."""
    data: Dataset | Stream = source.data
    if isinstance(data, Mixture):
        return replace(source, data=MixtureStream([_streamed(inner) for inner in data.sources], data.rules))
    return replace(source, data=DatasetStream(data) if isinstance(data, Sized) else data)
