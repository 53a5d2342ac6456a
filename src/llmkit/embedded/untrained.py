"""The embedded model before training: seeded random weights, and its own byte-level tokenizer and chat template."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.cache import cached_directory, fingerprint
from llmkit.config.section import Section

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3Config

VOCABULARY = 512
NUM_TEXTS = 3000
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' -%}
{%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}
{{- message.content + '<|im_end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


class Config(Section):
    """Nothing to choose."""


def build(config: Config) -> Path:
    """The directory of the untrained model; the same weights and tokenizer every time."""
    from llmkit.data.datasets import arithmetic

    name = f"tiny-untrained-{fingerprint([Path(__file__), Path(arithmetic.__file__)])}"
    return cached_directory(name, write)


def write(directory: Path) -> None:
    """Make tokenizer and weights."""
    import torch
    from transformers import Qwen3ForCausalLM

    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(directory)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(make_config(tokenizer))
    torch.set_rng_state(state)
    model.save_pretrained(directory)


def make_config(tokenizer: "PreTrainedTokenizerFast") -> "Qwen3Config":
    """Wide and shallow: on this task three layers learn more per second than six narrower ones."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=672,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIAL_TOKENS.index(tokenizer.eos_token),
        pad_token_id=SPECIAL_TOKENS.index(tokenizer.pad_token),
    )


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """A byte-level BPE, trained on generated problems; each digit is a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # The Rust side of `tokenizers` must not warn about forks that come later.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment] - the stub lacks the setter
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def texts() -> list[str]:
    """What the tokenizer learns its words from."""
    from llmkit.data.datasets.arithmetic import Config as Problems
    from llmkit.data.datasets.arithmetic import build as build_problems

    problems = build_problems(Problems.model_validate({"size": NUM_TEXTS, "hasty_fraction": 0.5}))
    rows = [problems[index].values for index in range(NUM_TEXTS)]
    return [f"{row['question']}\n{row['answer']}\nsystem\nuser\nassistant\n" for row in rows]
