"""Train a model: on demonstrations, on preferences, or by reinforcement learning."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmkit.errors import ConfigError
from llmkit.train import options
from llmkit.train.help import TrainCommand
from llmkit.train.invocation import Invocation

if TYPE_CHECKING:
    from llmkit.config.resolve import Resolved

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

SFT_EXAMPLES = """\b
Examples:
  llmkit train sft --preset gsm8k-tiny
  llmkit train sft --model DIR --dataset files --dataset-path chats.jsonl --adapter lora
  llmkit train sft --config run.yaml --set optim.schedule=cosine --dry-run
  llmkit train sft --resume
"""
DPO_EXAMPLES = """\b
Examples:
  llmkit train dpo --model DIR --dataset files --dataset-path pairs.jsonl
  llmkit train dpo --config run.yaml --set algorithm.beta=0.2 --adapter lora
  llmkit train dpo --resume --output-dir runs/pairs
"""
GRPO_EXAMPLES = """\b
Examples:
  llmkit train grpo --preset gsm8k-tiny
  llmkit train grpo --preset gsm8k --model DIR --dataset-path DIR --max-steps 50
  llmkit train grpo --preset gsm8k --set algorithm.clip_high=0.28 --dry-run
  llmkit train grpo --resume
"""


@app.command(cls=TrainCommand, epilog=SFT_EXAMPLES)
def sft(
    ctx: typer.Context,
    preset: options.Preset = None,
    config: options.ConfigFiles = None,
    overrides: options.Overrides = None,
    output_dir: options.OutputDir = None,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    model: options.Model = None,
    dataset: options.Dataset = None,
    dataset_path: options.DatasetPath = None,
    adapter: options.Adapter = None,
    learning_rate: options.LearningRate = None,
    max_steps: options.MaxSteps = None,
    num_epochs: options.NumEpochs = None,
    rows_per_step: options.RowsPerStep = None,
    max_length: options.MaxLength = None,
    seed: options.Seed = None,
    eval_every: options.EvalEvery = None,
    checkpoint_every: options.CheckpointEvery = None,
    device: options.Device = None,
    threads: options.Threads = None,
    trackers: options.Trackers = None,
) -> None:
    """Fine-tune on demonstrations: cross-entropy of the answers' tokens."""
    resolved, invocation = prepare("train/sft", ctx.params)
    from llmkit.train.sft import train  # torch is first imported here

    show(train(resolved, invocation), invocation)


@app.command(cls=TrainCommand, epilog=DPO_EXAMPLES)
def dpo(
    ctx: typer.Context,
    preset: options.Preset = None,
    config: options.ConfigFiles = None,
    overrides: options.Overrides = None,
    output_dir: options.OutputDir = None,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    model: options.Model = None,
    dataset: options.Dataset = None,
    dataset_path: options.DatasetPath = None,
    adapter: options.Adapter = None,
    learning_rate: options.LearningRate = None,
    max_steps: options.MaxSteps = None,
    num_epochs: options.NumEpochs = None,
    rows_per_step: options.RowsPerStep = None,
    max_length: options.MaxLength = None,
    seed: options.Seed = None,
    eval_every: options.EvalEvery = None,
    checkpoint_every: options.CheckpointEvery = None,
    device: options.Device = None,
    threads: options.Threads = None,
    trackers: options.Trackers = None,
) -> None:
    """Train on pairs of a chosen and a rejected answer (DPO)."""
    resolved, invocation = prepare("train/dpo", ctx.params)
    from llmkit.train.dpo import train

    show(train(resolved, invocation), invocation)


@app.command(cls=TrainCommand, epilog=GRPO_EXAMPLES)
def grpo(
    ctx: typer.Context,
    preset: options.Preset = None,
    config: options.ConfigFiles = None,
    overrides: options.Overrides = None,
    output_dir: options.OutputDir = None,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    model: options.Model = None,
    dataset: options.Dataset = None,
    dataset_path: options.DatasetPath = None,
    adapter: options.Adapter = None,
    engine: options.Engine = None,
    workflow: options.Workflow = None,
    reward: options.Reward = None,
    learning_rate: options.LearningRate = None,
    max_steps: options.MaxSteps = None,
    num_epochs: options.NumEpochs = None,
    prompts_per_step: options.PromptsPerStep = None,
    group_size: options.GroupSize = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = None,
    kl_coef: options.KLCoef = None,
    max_length: options.MaxLength = None,
    seed: options.Seed = None,
    eval_every: options.EvalEvery = None,
    checkpoint_every: options.CheckpointEvery = None,
    device: options.Device = None,
    threads: options.Threads = None,
    trackers: options.Trackers = None,
) -> None:
    """Learn from rewards: sample groups of answers, score them, reinforce the better ones (GRPO)."""
    resolved, invocation = prepare("train/grpo", ctx.params)
    from llmkit.train.grpo import train

    show(train(resolved, invocation), invocation)
