"""The sections that runs are made of. Values, limits and their meaning; the runs themselves are in `runs.py`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from llmkit.config.scoring import ScoringConfig
from llmkit.config.section import Nonsemantic, PluginKind, PluginSection, Section, all_defaults


class ModelConfig(Section):
    """The model to start from."""

    path: str = "builtin:tiny"
    """Local directory, Hugging Face name, or `builtin:tiny`, the embedded model that a laptop trains in minutes."""
    revision: str | None = None
    """Branch, tag or commit, when `path` is a Hugging Face name."""
    tokenizer: str | None = None
    """Directory or name of the tokenizer, when it is not the model's own."""
    chat_template: str | None = None
    """Jinja file, or name of a built-in template (`chatml`, ...), to use in place of the tokenizer's own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Type in which the weights are kept and trained; `auto` is the checkpoint's own."""
    add_tokens: tuple[str, ...] = ()
    """Tokens to add to the vocabulary, such as `<tool>`: text that spells one becomes it, and answers show it. Their
    embeddings start as the mean of all others and train, with an adapter too."""
    add_special_tokens: tuple[str, ...] = ()
    """The same for control tokens, which a chat template writes: text of a message that spells one stays text, and
    answers leave it out."""
    pad_vocab_to_multiple_of: Annotated[int | None, Field(ge=2)] = None
    """Add unused rows to the embeddings until their number is a multiple of this, which GPUs are faster with; full
    fine-tuning alone can."""
    quantization: Literal["none", "bnb_4bit", "bnb_8bit", "torchao_int8"] = "none"
    """Keep the base model's linear layers in 4 or 8 bits and train an adapter beside them (QLoRA): `bnb_4bit`
    (NormalFloat) and `bnb_8bit` of bitsandbytes, `torchao_int8` of torchao."""
    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint."""

    @model_validator(mode="after")
    def _tokens_are_tokens(self) -> Self:
        asked = [*self.add_tokens, *self.add_special_tokens]
        for token in asked:
            if not token.strip():
                raise ValueError(f"model.add_tokens: {token!r} is no token: it has no visible character")
            if asked.count(token) > 1:
                raise ValueError(f"model.add_tokens and model.add_special_tokens name {token!r} more than once")
        return self


class DeviceConfig(Section):
    """Where and in which precision to compute."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes a GPU when there is one."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs matrix products, and what goes from layer to layer, in half the bits (autocast); weights, loss
    and optimizer stay as they are."""
    threads: int | None = Field(None, ge=1)
    """CPU threads, of a trainer not those of the servers that it asks; unset takes the cores that other processes leave
    free when the run starts."""
    gradient_checkpointing: Annotated[bool, Nonsemantic] = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    offload_activations: Annotated[bool, Nonsemantic] = False
    """Keep what the backward pass needs in the memory of the host: less memory of the GPU, and time to copy it."""


class ReadingConfig(Section):
    """How rows are read."""

    on_error: Literal["raise", "skip"] = "raise"
    """What happens to a faulty row: stop, or leave it out, count it and write it to `skipped_rows.jsonl`."""
    max_skipped: int = Field(100, ge=0)
    """Most faulty rows to leave out with `on_error=skip`; one more stops the run."""
    num_workers: Annotated[int, Nonsemantic] = Field(0, ge=0)
    """Processes that tokenize; 0 does it in the run itself."""
    special_tokens_in_text: bool = False
    """Let text of a message that spells a special token (`<|im_end|>`) become that token; off makes it plain text."""


class RowsConfig(ReadingConfig):
    """How rows are read and drawn."""

    shuffle: bool = True
    """Draw rows in a new random order each epoch; the order follows from `seed`."""
    shuffle_block: int = Field(10_000, ge=1)
    """Rows of a stream that are read and shuffled together; a data set that is not a stream is shuffled as a whole."""
    validation_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the rows to hold out and measure on when there is no `eval_dataset`; chosen by `seed`."""


class DataConfig(RowsConfig):
    """How rows become training samples."""

    max_length: int = Field(2048, ge=2)
    """Most tokens of a sample, prompt and answer together; never more than the model's context."""
    overlength: Literal["error", "drop", "truncate_right", "truncate_left", "split"] = "error"
    """What happens to a longer one: stop, leave it out and count it, cut its end or its start, or divide it into
    several."""
    untrained: Literal["error", "drop"] = "error"
    """What happens to a row of which no token would be trained: stop, or leave it out and count it."""
    cache: Annotated[bool, Nonsemantic] = True
    """Keep tokenized rows for the next run with the same data, tokenizer and options."""


class SFTDataConfig(DataConfig):
    """How rows become training samples, and which of their tokens train."""

    train_on: Literal["assistant", "last_turn", "all"] = "assistant"
    """Which tokens carry loss; a `weight` on a message or on a part of it overrides it there."""
    train_end_of_turn: bool = True
    """Train the token that ends an assistant's turn; a model that never sees it trained does not learn to stop."""


class PromptDataConfig(RowsConfig):
    """How rows become prompts."""

    max_length: int = Field(2048, ge=2)
    """Most tokens of prompt and completion together; never more than the model's context."""
    overlength: Literal["error", "drop"] = "error"
    """What happens to a prompt that leaves no room for a completion: stop, or leave it out and count it."""


class BatchConfig(Section):
    """How much goes into one optimizer step and one forward pass."""

    rows_per_step: int = Field(16, ge=1)
    """Rows (pairs, for preference training; bins, when they are packed) per optimizer step."""
    tokens_per_step: int | None = Field(None, ge=1)
    """Most tokens per optimizer step, in place of a number of rows: as many rows as fit in it."""
    packing: Literal["none", "length", "best_fit"] = "none"
    """Which rows come together in a step: `none` as they are drawn; `length` rows of similar length; `best_fit` the
    epoch's rows are packed into bins of `pack_length` tokens, so that every step has about the same number of tokens.
    Rows stay sequences of their own, whatever the choice."""
    pack_length: int | None = Field(None, ge=2)
    """Tokens of a bin for `packing=best_fit`; unset is `data.max_length`, twice that for pairs."""
    tokens_per_micro_batch: Annotated[int, Nonsemantic] = Field(8192, ge=1)
    """Tokens per forward and backward pass; changes memory and speed, never the result."""


class PairBatchConfig(BatchConfig):
    """How much goes into one optimizer step and one forward pass, and what pairs share in it."""

    share_prompts: Annotated[bool, Nonsemantic] = True
    """Compute the prompt of a pair once for both answers; changes memory and speed, the result by rounding alone."""


class RolloutBatchConfig(Section):
    """How much goes into one reinforcement-learning step."""

    prompts_per_step: int = Field(16, ge=1)
    """Prompts sampled per step; times `algorithm.group_size` completions."""
    tokens_per_micro_batch: Annotated[int, Nonsemantic] = Field(8192, ge=1)
    """Tokens per forward and backward pass; changes memory and speed, never the result."""
    share_prompts: Annotated[bool, Nonsemantic] = True
    """Compute the prompt of a group once for all completions; changes memory and speed, the result by rounding
    alone."""


class CheckpointConfig(Section):
    """When a run saves itself."""

    every_steps: Annotated[int, Nonsemantic] = Field(100, ge=0)
    """Steps between checkpoints; 0 saves only at the end and when interrupted."""
    keep_last: Annotated[int, Nonsemantic] = Field(2, ge=1)
    """How many checkpoints to keep."""
    asynchronous: Annotated[bool, Nonsemantic] = True
    """Copy what is saved and write it while training goes on; off waits for the disk and needs no memory for a copy."""
    best_metric: str | None = None
    """Save after every evaluation in which this metric (`eval_loss`, ...) is better than ever, and keep that checkpoint
    beside the last ones; the file `checkpoints/best` names it. Unset keeps no best one."""
    best_mode: Literal["auto", "min", "max"] = "auto"
    """Whether less or more of the metric is better; `auto` goes by its name: less loss, more reward."""


class SamplingConfig(Section):
    """How rollouts are drawn."""

    max_new_tokens: int = Field(256, ge=1)
    """Most tokens of one completion."""
    temperature: float = Field(1.0, gt=0)
    """Divides the logits before sampling; the policy's log-probabilities use the same value."""


class EvalConfig(Section):
    """How a run measures itself on rows that it does not train on."""

    every_steps: int = Field(0, ge=0)
    """Steps between evaluations; 0 evaluates at the start and at the end only."""
    max_rows: int = Field(256, ge=1)
    """Rows used, from the start of the evaluation set."""
    patience: int = Field(0, ge=0)
    """Stop after this many evaluations in a row without improvement of `checkpoint.best_metric` (unset: the loss, or
    the reward of reinforcement learning); 0 never does."""
    min_delta: float = Field(0.0, ge=0)
    """Less than this is no improvement."""


class GenerateConfig(Section):
    """Answers that the model in training gives to held-out questions, sampled in this process and scored: metrics
    `eval_reward_mean`, `eval_accuracy` (the share of rewards of exactly 1; `eval_answer_accuracy` in preference
    training) and `eval_completion_length_mean`."""

    reward: Annotated[PluginSection | None, PluginKind("rewards")] = None
    """What scores an answer; unset samples none."""
    scoring: ScoringConfig = all_defaults(ScoringConfig)
    workflow: Annotated[PluginSection, PluginKind("workflows", "single_turn")]
    """How an answer is made of a question."""
    max_rows: int = Field(64, ge=1)
    """Held-out rows that are answered, one answer each."""
    max_new_tokens: int = Field(256, ge=1)
    """Most tokens of one answer; with its question at most `data.max_length`."""
    temperature: float = Field(0.0, ge=0)
    """Temperature of the answers; 0 is greedy."""


class AnsweringEvalConfig(EvalConfig):
    """How a run measures itself on rows that it does not train on, by loss and by answers of its own."""

    generate: GenerateConfig = all_defaults(GenerateConfig)


class RolloutEvalConfig(EvalConfig):
    """How a run measures itself on prompts that it does not train on."""

    temperature: float = Field(0.0, ge=0)
    """Temperature of held-out completions; 0 is greedy."""
