"""The dialect for servers of which only the addresses are known."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llmkit import plugins
from llmkit.engines.inference.remote.contract import Dialect, Fleet
from llmkit.engines.inference.remote.deadlines import Deadlines
from llmkit.engines.inference.remote.detecting import Detected, detect
from llmkit.engines.inference.remote.llmkit_dialect import LLMKitDialect
from llmkit.engines.inference.remote.openai_dialect import OpenAIDialect
from llmkit.engines.inference.remote.probing import ask_servers
from llmkit.engines.inference.remote.refusals import ServedLogprobs
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def open_dialect(
    fleet: Fleet, deadlines: Deadlines, text_tokenizer: "PreTrainedTokenizerBase | None" = None
) -> Dialect:
    """Ask the servers what they are, and choose the dialect that gets most out of them.

    Args:
        text_tokenizer: takes servers as well that give text alone; None refuses them.
    Raises:
        ConfigError: they are of several kinds, or give text alone.
        EngineError: none answers.
    """
    found = ask_servers(fleet, detect, deadlines)
    if len(set(found)) > 1:
        kinds = ", ".join(sorted({_described(one) for one in found}))
        raise ConfigError(f"engine.urls has servers of several kinds: {kinds}; give those of one kind")
    return _dialect_for(found[0], text_tokenizer)


def served_logprobs(fleet: Fleet, deadlines: Deadlines) -> ServedLogprobs:
    """Which log-probabilities servers give that somebody else has started.

    Raises:
        ConfigError: they give none, or not all the same.
        EngineError: none answers.
    """
    found: list[ServedLogprobs | None] = [one.logprobs for one in ask_servers(fleet, detect, deadlines)]
    first = found[0]
    if first is None or any(one != first for one in found):
        kinds = ", ".join(sorted({str(one or "none") for one in found}))
        raise ConfigError(f"engine.urls: these servers give the log-probabilities {kinds}; all must give the same ones")
    return first


def _dialect_for(found: Detected, text_tokenizer: "PreTrainedTokenizerBase | None") -> Dialect:
    if found.program == "llmkit":
        return LLMKitDialect()
    if found.gives_token_ids and found.logprobs is not None:
        return _plugins_dialect(found) or OpenAIDialect(logprobs=found.logprobs)
    if text_tokenizer is None:
        raise ConfigError(
            f"engine.urls: these servers ({_described(found)}) give no token ids and log-probabilities; set "
            "engine.text=true to take their text, which is enough for answers that people read and not for training"
        )
    return OpenAIDialect(text_tokenizer)


def _plugins_dialect(found: Detected) -> Dialect | None:
    """That of the engine plugin for this program, which has it in its module `dialect`; None without one."""
    if not plugins.is_installed("engines", found.program):
        return None
    front = plugins.find("engines", found.program).module
    if not hasattr(import_module(front), "__path__") or find_spec(f"{front}.dialect") is None:
        return None
    dialect: Dialect = import_module(f"{front}.dialect").open_dialect(found.logprobs)
    return dialect


def _described(found: Detected) -> str:
    what = found.program or "unknown"
    return f"{what}, {found.logprobs} log-probabilities" if found.gives_token_ids else f"{what}, text alone"
