"""`llmkit bench train`: training steps of `llmkit train` and of other trainers, in turn, on the same model and rows."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmkit.bench import training_material
from llmkit.bench.limits import limits_of
from llmkit.bench.machine import ForeignLoad
from llmkit.bench.results import Findings
from llmkit.bench.setup import Setup, open_setup
from llmkit.bench.table import show_part
from llmkit.bench.timing import turns
from llmkit.bench.training_cases import CASES, LEARNING_RATE, TRL, Case
from llmkit.bench.training_results import Runs, findings
from llmkit.bench.worker import Worker
from llmkit.errors import ConfigError
from llmkit.terminal import stderr_console

OURS = "llmkit"
MAX_LENGTH = 2048
MODELS = "models"


@dataclass(frozen=True)
class TrainBench:
    """What to measure.

    Attributes:
        cases: names out of `CASES`.
        trl_python: interpreter of an environment with TRL; None leaves TRL out.
        repeats: turns of each contender that count.
        steps: optimizer steps in a turn.
        warmup_steps: steps of each contender before the first turn, which count for losses alone.
        threads: cores and threads that each contender has.
        device: `cpu` or `cuda`.
    """

    cases: tuple[str, ...]
    trl_python: Path | None
    repeats: int
    steps: int
    warmup_steps: int
    threads: int
    device: str


def measure(request: TrainBench) -> dict[str, Any]:
    """Measure what is asked for and show it on standard error.

    Returns: the JSON document.
    Raises:
        ConfigError: there are fewer cores than threads.
        BenchError: a contender failed, or contenders that should train alike do not.
    """
    check_device(request.device)
    found = Findings()
    limits: dict[str, dict[str, float]] = {}
    with open_setup(request.threads, request.repeats, request.trl_python) as setup:
        training_material.write_plugins(setup.directory)
        for case in (CASES[name] for name in request.cases):
            stderr_console().print(f"Measuring {case.name} ...")
            if case.dtype not in limits and request.device == "cpu":
                limits[case.dtype] = limits_of(case.dtype, setup.cores, setup.directory)
            one = measure_case(case, request, setup, limits.get(case.dtype))
            show_part("train", one)
            found.add(one)
        return setup.document("bench train", found)


def check_device(device: str) -> None:
    """
    Raises:
        ConfigError: there is no such device here.
    """
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ConfigError("--device cuda: PyTorch finds no GPU here; use --device cpu")


def measure_case(case: Case, request: TrainBench, setup: Setup, limits: Mapping[str, float] | None = None) -> Findings:
    """Let all contenders train in turn, a few steps at a time, each in a process of its own.

    Args:
        case: what they train.
        request: how often and how long.
        setup: where.
        limits: what the machine can do at most in the case's type; None where that was not measured.

    Raises:
        BenchError: a contender failed, or its losses are not those of the others.
    """
    model = _model(case, setup.directory)
    load = ForeignLoad()
    with ExitStack() as stack:
        workers = {OURS: stack.enter_context(our_worker(case, setup, threads=request.threads, device=request.device))}
        for name in case.trl if setup.trl_python else ():
            workers[name] = stack.enter_context(trl_worker(case, name, setup, device=request.device))
        runs = {name: Runs() for name in workers}
        for name, worker in workers.items():
            runs[name].take(worker.ask("steps", count=request.warmup_steps), counts=False)
        for name in turns(list(workers), request.repeats):
            runs[name].take(workers[name].ask("steps", count=request.steps), counts=True)
    about = {
        "model": training_material.describe(case.shape),
        "parameters": training_material.num_parameters(model),
        "rows_per_step": case.rows_per_step,
        "steps": request.steps * request.repeats,
        "threads": request.threads,
        "dtype": case.dtype,
        **(limits or {}),
    }
    return findings(case, runs, about, load.share(), limits)


def _model(case: Case, directory: Path) -> Path:
    """The checkpoint that a case starts from; cases of one shape share it."""
    shape = case.shape
    model = directory / MODELS / f"{shape.hidden}-{shape.layers}-{shape.vocabulary}"
    if not model.exists():
        training_material.write_model(model, shape)
    return model


def _rows(case: Case, directory: Path) -> tuple[str, list[list[int]]]:
    """The file with the rows of a case, and its scripted answers."""
    make = {
        "sft": lambda: training_material.chats(training_material.ROWS, case.prompt, case.answer),
        "dpo": lambda: training_material.pairs(training_material.ROWS, case.prompt, case.answer),
        "grpo": lambda: training_material.prompts(training_material.ROWS, case.prompt),
    }
    rows = training_material.write(directory / f"{case.name}.jsonl", make[case.algorithm]())
    return rows, training_material.answers(case.rows_per_step, case.answer) if case.scripted else []


def our_worker(case: Case, setup: Setup, *, threads: int, device: str) -> Worker:
    """Start `llmkit train`; it waits before its first step until it is asked for steps."""
    model, (rows, answers) = _model(case, setup.directory), _rows(case, setup.directory)
    config = setup.directory / f"{case.name}.yaml"
    tree = _nested(_our_settings(case, model, rows, answers, threads, device))
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    settings = {"algorithm": case.algorithm, "config": str(config), "contender": case.name}
    return setup.ours(f"{case.name} {OURS}", "training", settings)


def trl_worker(case: Case, way: str, setup: Setup, *, device: str) -> Worker:
    """Start TRL's trainer.

    Args:
        way: to set it up, one of the case's.
    """
    model, (rows, answers) = _model(case, setup.directory), _rows(case, setup.directory)
    settings = _trl_settings(case, case.trl[way], model, rows, answers, device)
    return setup.peer(f"{case.name} {way}", "trl_training", settings, setup.trl_python)


def _our_settings(
    case: Case, model: Path, rows: str, answers: list[list[int]], threads: int, device: str
) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "model.path": str(model),
        "dataset.name": "files",
        "dataset.path": rows,
        "data.shuffle": False,
        "data.max_length": MAX_LENGTH,
        "max_steps": 1_000_000,
        "checkpoint.every_steps": 0,
        "optim.learning_rate": LEARNING_RATE,
        "optim.schedule": "constant",
        "optim.warmup_steps": 0,
        "optim.weight_decay": 0.0,
        "optim.max_grad_norm": 1.0,
        "device.device": device,
        "device.threads": threads,
        "trackers": [{"name": "bench_steps"}],
    }
    if case.algorithm == "grpo":
        settings |= {
            "batch.prompts_per_step": case.rows_per_step // case.group_size,
            "algorithm.group_size": case.group_size,
            "sampling.max_new_tokens": 2 * case.answer if case.scripted else case.answer,
            "reward.name": "bench_even",
        }
    else:
        settings["batch.rows_per_step"] = case.rows_per_step
    if answers:
        settings |= {"engine.name": "echo", "engine.script": answers}
    return {**settings, **case.ours}


def _trl_settings(
    case: Case, trl: TRL, model: Path, rows: str, answers: list[list[int]], device: str
) -> dict[str, Any]:
    return {
        "algorithm": case.algorithm,
        "model": str(model),
        "rows": rows,
        "rows_per_step": case.rows_per_step,
        "learning_rate": LEARNING_RATE,
        "max_length": MAX_LENGTH,
        "device": device,
        "micro_batch": trl.micro_batch,
        "bf16": trl.bf16,
        "dtype": trl.dtype,
        "options": dict(trl.options),
        "group_size": case.group_size,
        "completion_tokens": 2 * case.answer if case.scripted else case.answer,
        "answers": answers,
    }


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as the tree that a file has."""
    tree: dict[str, Any] = {}
    for name, value in settings.items():
        *above, last = name.split(".")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return json.loads(json.dumps(tree))
