"""Training by TRL's own trainers, told to do what `llmkit train` does: the same rows in the same order, no more."""

import tempfile
import time
from typing import Any

from .stepping import Stepper


def train(settings: dict[str, Any], stepper: Stepper) -> None:
    """Train for as long as steps are asked for.

    Args:
        settings: `algorithm`, `model` and `rows` to read, `rows_per_step`, `learning_rate`, and what TRL is set to in
            this contest: `micro_batch` rows per forward pass, `bf16` autocast, `dtype` of the weights, and `options` of
            the trainer's own configuration.
    """
    import datasets
    from transformers import AutoTokenizer, TrainerCallback

    datasets.disable_caching()
    datasets.disable_progress_bars()
    make = {"sft": _sft, "dpo": _dpo, "grpo": _grpo}[settings["algorithm"]]
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    directory = tempfile.mkdtemp(dir=settings["directory"])
    rows = datasets.load_dataset("json", data_files=settings["rows"], split="train", cache_dir=directory)
    trainer = make(settings, rows, tokenizer, _arguments(settings, directory))
    losses: list[Any] = []
    training_step = trainer.training_step

    def remember(*args: Any, **kwargs: Any) -> Any:
        loss = training_step(*args, **kwargs)
        losses.append(loss)
        return loss

    class Report(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds = getattr(trainer, "generation_seconds", None)
            measured = {} if seconds is None else {"generation_seconds": seconds}
            trainer.generation_seconds = 0.0 if measured else None
            stepper.finish_step(loss=sum(float(loss) for loss in losses), **measured)
            losses.clear()

    trainer.training_step = remember
    trainer.add_callback(Report())
    stepper.begin()
    trainer.train()


def _arguments(settings: dict[str, Any], directory: str) -> dict[str, Any]:
    """What all of TRL's trainers are told: AdamW in its fused form, as llmkit has it, and no work beside training."""
    return {
        "output_dir": directory,
        "max_steps": 1_000_000,
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": False,
        "bf16": settings["bf16"],
        "model_init_kwargs": {"dtype": settings["dtype"]},
        "per_device_train_batch_size": settings["micro_batch"],
        "gradient_accumulation_steps": settings["rows_per_step"] // settings["micro_batch"],
        "train_sampling_strategy": "sequential",
        "logging_steps": 1_000_000,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": settings["device"] == "cpu",
        "seed": 0,
        **settings["options"],
    }


def _sft(settings: dict[str, Any], rows: Any, tokenizer: Any, arguments: dict[str, Any]) -> Any:
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports] - in an environment of its own

    # Rows that are laid end to end are never cut; no row here is long enough to be.
    max_length = None if settings["options"].get("padding_free") else settings["max_length"]
    config = SFTConfig(**arguments, assistant_only_loss=True, max_length=max_length, shuffle_dataset=False)
    return SFTTrainer(settings["model"], config, train_dataset=rows, processing_class=tokenizer)


def _dpo(settings: dict[str, Any], rows: Any, tokenizer: Any, arguments: dict[str, Any]) -> Any:
    from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportMissingImports]

    config = DPOConfig(**arguments, max_length=settings["max_length"])
    return DPOTrainer(settings["model"], args=config, train_dataset=rows, processing_class=tokenizer)


def _grpo(settings: dict[str, Any], rows: Any, tokenizer: Any, arguments: dict[str, Any]) -> Any:
    """On policy, without a KL penalty, every token alike: TRL's `dapo` is the mean over tokens."""
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    # Some versions of TRL draw prompts in an order of their own; how long they are is the same for all.
    del arguments["train_sampling_strategy"]
    config = GRPOConfig(
        **arguments,
        num_generations=settings["group_size"],
        max_completion_length=settings["completion_tokens"],
        beta=0.0,
        loss_type="dapo",
        scale_rewards="group",
        shuffle_dataset=False,
        temperature=1.0,
        top_k=0,
    )
    answers = settings["answers"]

    def scripted(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        encoded = [
            tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
            for prompt in prompts
        ]
        chosen = [answers[index % len(answers)] for index in range(len(prompts))]
        return {
            "prompt_ids": [one["input_ids"] for one in encoded],
            "completion_ids": chosen,
            "logprobs": [[0.0] * len(one) for one in chosen],
        }

    trainer = GRPOTrainer(
        settings["model"],
        reward_funcs=share_of_even_tokens,
        args=config,
        train_dataset=rows,
        processing_class=tokenizer,
        rollout_func=scripted if answers else None,
    )
    generate = trainer._generate
    trainer.generation_seconds = 0.0

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        made = generate(*args, **kwargs)
        trainer.generation_seconds += time.perf_counter() - start
        return made

    trainer._generate = timed
    return trainer


def share_of_even_tokens(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that costs nothing and differs from answer to answer."""
    return [sum(token % 2 == 0 for token in one) / max(1, len(one)) for one in completion_ids]


def main() -> None:
    """Train until standard input ends."""
    stepper = Stepper()
    stepper.run(lambda settings: train(settings, stepper))
