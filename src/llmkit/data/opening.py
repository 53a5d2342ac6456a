"""Open the tokenizer of a model with its chat template."""

import logging
import re
from difflib import get_close_matches
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llmkit.config.schema import ModelConfig
from llmkit.data.chat.builtin_templates import read_template, template_names
from llmkit.data.codec import TextCodec
from llmkit.errors import ModelError
from llmkit.models.loading import load_tokenizer

logger = logging.getLogger(__name__)

CONTROL_TOKEN = re.compile(r"<[|｜][\w▁]+[|｜]>|<(?:start|end)_of_turn>")
"""How templates spell special tokens."""


def open_codec(model: ModelConfig, *, special_tokens_in_text: bool = False) -> TextCodec:
    """The tokenizer with its own chat template, or the one that `model.chat_template` names.

    Warns of special tokens in a named template that the tokenizer does not have.

    Raises:
        ModelError: there is no tokenizer, or no such template; or the template is not Jinja.
    """
    tokenizer = load_tokenizer(model)
    if model.chat_template is not None:
        # The tokenizer is saved with checkpoints, which must be served with the template that they were trained with.
        tokenizer.chat_template = find_template(model.chat_template)
        _warn_of_missing_tokens(tokenizer, tokenizer.chat_template, model.chat_template)
    return TextCodec(tokenizer, special_tokens_in_text=special_tokens_in_text)


def find_template(name: str) -> str:
    """The Jinja text of a built-in template, or of a file.

    Raises:
        ModelError: there is neither, or the file cannot be read.
    """
    if name in template_names():
        return read_template(name)
    path = Path(name).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        close = get_close_matches(name, template_names(), n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ModelError(
            f"model.chat_template={name}: cannot be read: {error.strerror}, and no built-in template has that name."
            f"{hint} Built-in: {', '.join(template_names())}. For one of your own give the path of a Jinja file"
        ) from None
    except OSError as error:
        raise ModelError(f"model.chat_template={name}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"model.chat_template={name}: cannot be read: not UTF-8 text: {error}") from error


def missing_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """The special tokens that a template writes and the tokenizer does not have."""
    known = {token.content for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
    # A comment may name tokens that are never written.
    code = re.sub(r"\{#.*?#\}", "", template, flags=re.DOTALL)
    return [token for token in dict.fromkeys(CONTROL_TOKEN.findall(code)) if token not in known]


def _warn_of_missing_tokens(tokenizer: PreTrainedTokenizerBase, template: str, name: str) -> None:
    if missing := missing_tokens(tokenizer, template):
        logger.warning(
            "model.chat_template=%s writes %s, which the tokenizer has not: the model reads ordinary characters there, "
            "and an answer may not end. Use the tokenizer of an instruct model (model.tokenizer), or a template that "
            "needs no such tokens (plain, alpaca, vicuna)",
            name,
            ", ".join(missing),
        )
