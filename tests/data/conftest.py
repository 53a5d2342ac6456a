"""Small tokenizers with the chat templates of the model families."""

from collections.abc import Callable

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llmkit.data.codec import TextCodec
from llmkit.types import Message, Record, Source

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_MARKED = """\
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}
        {{- m.content + '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
LAST_ANSWER_MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if loop.last %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST] ' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
# Reasoning is dropped from every answer but the last, so earlier turns are not how longer conversations begin.
QWEN3 = """\
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {%- set text = m.content %}
        {%- set reasoning = '' %}
        {%- if '</think>' in text %}
            {%- set reasoning = text.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set text = text.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.last %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + text }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + text }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
# A token that ends the whole text follows the last turn, and only there.
PHI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)

SPECIALS = {
    "chatml": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": ("<s>", "</s>"),
    "phi": ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
}
# Which special tokens, which template, begin and end of text.
FAMILIES = {
    "chatml": ("chatml", CHATML, None, "<|endoftext|>"),
    "chatml_marked": ("chatml", CHATML_MARKED, None, "<|endoftext|>"),
    "last_answer_marked": ("chatml", LAST_ANSWER_MARKED, None, "<|endoftext|>"),
    "llama3": ("llama3", LLAMA3, "<|begin_of_text|>", "<|eot_id|>"),
    "llama3_gpt2": ("llama3", LLAMA3, "<|begin_of_text|>", "<|eot_id|>"),
    "mistral": ("mistral", MISTRAL, "<s>", "</s>"),
    "metaspace": ("mistral", MISTRAL, "<s>", "</s>"),
    "qwen3": ("chatml", QWEN3, None, "<|im_end|>"),
    "phi": ("phi", PHI, None, "<|endoftext|>"),
    "plain": ("chatml", PLAIN, None, "<|endoftext|>"),
}
CORPUS = [
    "What is two and two? The answer is four.\n\n",
    "user assistant system\n[INST] [/INST] Two and two is four.\n\n",
    "<|im_end|> think",
] * 20
# As Llama 3 and Qwen cut text into words: line breaks stay together. GPT-2 keeps the last one apart.
WORDS = r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def make_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of some 300 tokens with one family's special tokens and template."""
    specials, template, bos, eos = FAMILIES[family]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if family == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Replace("▁", " ")
    elif not family.endswith("gpt2"):
        words = pre_tokenizers.Split(Regex(WORDS), "isolated")
        by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, by_bytes])
    alphabet = [*pre_tokenizers.ByteLevel.alphabet(), "▁", "\n"]
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS[specials]])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, chat_template=template, name_or_path=f"tiny-{family}"
    )


@pytest.fixture(scope="session")
def codec_of() -> Callable[[str], TextCodec]:
    """The codec of a family, made once."""
    made: dict[str, TextCodec] = {}

    def codec(family: str) -> TextCodec:
        if family not in made:
            made[family] = TextCodec(make_tokenizer(family))
        return made[family]

    return codec


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[[str], PreTrainedTokenizerFast]:
    """A new tokenizer of a family."""
    return make_tokenizer


@pytest.fixture(scope="session")
def conversation() -> Callable[..., Record]:
    """A record of `role:content` turns, or of messages, at `train.jsonl:17`."""

    def make(*turns: str | Message) -> Record:
        messages = [turn if isinstance(turn, Message) else Message(*turn.split(":", 1)) for turn in turns]
        return Record(tuple(messages), Source("train.jsonl", 17))

    return make
