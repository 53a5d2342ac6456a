"""`llmkit bench convert`: time and memory of conversions of one checkpoint, each as a command of its own."""

import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit.bench.converting_material import write_adapter, write_tokenizer
from llmkit.bench.generation_material import model_directory
from llmkit.bench.processes import Usage, run_measured
from llmkit.bench.results import Findings, Result
from llmkit.bench.setup import Setup, open_setup
from llmkit.bench.table import show_part
from llmkit.bench.timing import rates
from llmkit.errors import BenchError
from llmkit.terminal import stderr_console


@dataclass(frozen=True)
class Case:
    """A conversion.

    Attributes:
        arguments: of `llmkit convert`; `{model}`, `{adapter}`, `{made}` and `{out}` stand for paths.
        output: name of what it writes.
        made_by: the case whose result it reads; None reads the model.
    """

    arguments: str
    output: str
    made_by: str | None = None


CASES: Mapping[str, Case] = {
    "float16": Case("checkpoint {model} --dtype float16 --output {out}", "half"),
    "float32": Case("checkpoint {model} --dtype float32 --output {out}", "full"),
    "dcp": Case("checkpoint {model} --to dcp --output {out}", "distributed"),
    "from-dcp": Case("checkpoint {made} --to safetensors --output {out}", "back", "dcp"),
    "torch": Case("checkpoint {model} --to torch --output {out}", "model.pt"),
    "from-torch": Case("checkpoint {made} --to safetensors --output {out}", "back", "torch"),
    "gguf-f16": Case("checkpoint {model} --to gguf --dtype float16 --output {out}", "model-f16.gguf"),
    "gguf-q4_k_m": Case("checkpoint {model} --to gguf --quantize q4_k_m --output {out}", "model-q4.gguf"),
    "merge": Case("merge {adapter} --base {model} --output {out}", "merged"),
    "adapter": Case("adapter {adapter} --base {model} --rank 4 --output {out}", "lora"),
}


@dataclass(frozen=True)
class ConvertBench:
    """What to measure.

    Attributes:
        cases: names of `CASES`.
        model: a directory, or a shape that is made with random weights.
        dtype: of weights that are made.
        repeats: runs of each conversion that count.
        threads: cores and threads of each.
    """

    cases: tuple[str, ...]
    model: str
    dtype: str
    repeats: int
    threads: int


def measure(request: ConvertBench) -> dict[str, Any]:
    """Measure what is asked for and show it on standard error.

    Returns: the JSON document.
    Raises:
        ConfigError: there are fewer cores than threads, or no such model.
        BenchError: a conversion failed, or the disk is full.
    """
    with open_setup(request.threads, request.repeats) as setup:
        try:
            found = _measure(request, setup)
        except OSError as error:
            raise BenchError(
                f"{setup.directory}: {error.strerror or error}; set TMPDIR to a directory with more room"
            ) from error
        show_part("checkpoint", found)
        return setup.document("bench convert", found)


def _measure(request: ConvertBench, setup: Setup) -> Findings:
    stderr_console().print(f"Making {request.model} ...", markup=False)
    model = model_directory(request.model, setup.directory, request.dtype)
    write_tokenizer(model, setup.directory)
    adapter = setup.directory / "adapter"
    if {"merge", "adapter"} & set(request.cases):
        write_adapter(model, adapter)
    num_bytes = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    settings = {"model": request.model, "bytes": num_bytes, "threads": len(setup.cores), "repeats": setup.repeats}
    results = []
    for name in request.cases:
        stderr_console().print(f"Measuring {name} ...", markup=False)
        case = CASES[name]
        paths = {"model": model, "adapter": adapter, "out": setup.directory / case.output}
        if case.made_by is not None:
            maker = CASES[case.made_by]
            paths["made"] = setup.directory / maker.output
            _run(case.made_by, maker, {**paths, "out": paths["made"]}, setup)
        runs = [_run(name, case, paths, setup) for _ in range(request.repeats)]
        results.append(Result(f"checkpoint/{name}", settings, _metrics(runs, num_bytes, setup)))
        for path in (paths["out"], paths.get("made")):
            _remove(path)
    return Findings(results)


def _run(name: str, case: Case, paths: Mapping[str, Path], setup: Setup) -> Usage:
    _remove(paths["out"])
    words = [word.format(**{key: str(path) for key, path in paths.items()}) for word in case.arguments.split()]
    return run_measured(name, ["-m", "llmkit", "convert", *words], setup)


def _metrics(runs: Sequence[Usage], num_bytes: int, setup: Setup) -> dict[str, Any]:
    found = rates([run.seconds for run in runs], bytes=num_bytes)
    return {
        **found,
        "cpu_seconds": statistics.median(run.cpu_seconds for run in runs),
        "memory_bandwidth_share": found["bytes_per_second"] / (setup.limits["memory_gbps"] * 1e9),
        "peak_memory_bytes": statistics.median(run.peak_memory_bytes for run in runs),
    }


def _remove(path: Path | None) -> None:
    """Remove a result, and the manifest beside it."""
    if path is not None and path.is_dir():
        shutil.rmtree(path)
    elif path is not None:
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.conversion.json").unlink(missing_ok=True)
