"""`llmkit rollout`: prompts in, scored rollouts out."""

import asyncio
import json
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from llmkit import plugins
from llmkit.config.resolve import Resolved
from llmkit.config.rollout import RolloutRun
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Ordered
from llmkit.data.opening import open_codec
from llmkit.disk import write_text
from llmkit.engines.inference.contract import Demand, EngineContext, InferenceEngine, ServingEngine
from llmkit.engines.servers.fronts import check_servers, program_of
from llmkit.errors import ModelError, RunInterrupted
from llmkit.models.loading import context_length
from llmkit.models.policy import torch_device
from llmkit.models.threads import bound_kernel_caches, set_threads
from llmkit.rollout.dry_run import look
from llmkit.rollout.header import check_same_run, write_header
from llmkit.rollout.keeping import Keeper
from llmkit.rollout.ledger import Ledger
from llmkit.rollout.making import Maker
from llmkit.rollout.opening import close_workflow, open_workflow
from llmkit.rollout.prompts import REPORT, PromptSource, open_prompts
from llmkit.rollout.scoring.scorer import Scorer
from llmkit.rollout.selecting import write_selected
from llmkit.rollout.summary import summarize
from llmkit.rollout.telling import print_summary, write_plot
from llmkit.runs import run_directory
from llmkit.runs.run_directory import RunDirectory
from llmkit.terminal import note, warn
from llmkit.trackers.progress import open_progress
from llmkit.types import SamplingParams

LINE_SECONDS = 10.0
"""Least time between two lines that tell how far the run is, where there is no terminal."""


def make_rollouts(
    resolved: Resolved[RolloutRun], *, name: str = "rollout", resume: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Run it; returns the summary as plain values.

    Args:
        name: start of a new run directory's name.
        resume: go on with the run in its directory.
        dry_run: check everything that can be known before a model is loaded, and stop.
    Raises:
        RunInterrupted: the user stopped it; what is done is kept.
        LLMKitError: something is wrong, or too many rollouts failed.
    """
    run = resolved.run
    codec = open_codec(run.model, special_tokens_in_text=run.data.special_tokens_in_text)
    source = open_prompts(run, codec)
    max_length = longest(run)
    first = source.first(max_length)
    check_servers(run.engine, run.model, run.device)
    scorer = Scorer(run.reward, run.scoring) if run.reward is not None else None
    workflow = plugins.load("workflows", run.workflow.name).build(run.workflow)
    if isinstance(source.data, Ordered):
        note("The data set draws from its sources by weights; here every row is a prompt once.")
    if run.sampling.temperature == 0 and run.group_size > 1:
        warn(f"with sampling.temperature=0 all {run.group_size} completions of a prompt are the same")
    if dry_run:
        return look(source, first, max_length)
    with run_directory.open("rollout", output_dir=run.output_dir, name=name, resume=resume) as directory, stoppable():
        check_same_run(directory, resolved, source)
        directory.write_start(resolved.to_yaml())
        write_header(directory, resolved, source)
        note(f"Writing rollouts to {directory.path / 'rollouts.jsonl'}")
        with closing(Ledger(directory.path / "rollouts.jsonl")) as ledger:
            if ledger.done.torn_bytes:
                warn(f"{ledger.path}: cut off {ledger.done.torn_bytes:,} bytes of a line that was never finished")
            keeper = sample(run, source, directory, ledger, scorer, workflow, max_length)
        return close(run, source, directory, keeper)


def sample(
    run: RolloutRun,
    source: PromptSource,
    directory: RunDirectory,
    ledger: Ledger,
    scorer: Scorer | None,
    workflow: Any,
    max_length: int,
) -> Keeper:
    """Start the engine and make what is missing."""
    report, errors = directory.path / REPORT, directory.path / "errors.jsonl"
    for path in (report, errors):
        path.unlink(missing_ok=True)  # what failed before is read, or made, again
    total = None if source.num_rows is None else source.num_rows * run.group_size
    with (
        ExitStack() as afterwards,
        asyncio.Runner() as loop,
        opened(loop, workflow, scorer, source.codec),
        closing(open_progress(total, LINE_SECONDS, noun="rollout")) as progress,
        started(loop, run, source, directory, max_length) as engine,
    ):
        if isinstance(engine, ServingEngine) and engine.context_length is not None:
            max_length = min(max_length, engine.context_length)
        keeper = Keeper(ledger, errors, run.max_errors, progress)
        maker = Maker(
            engine=engine,
            workflow=workflow,
            scorer=scorer,
            codec=source.codec,
            sampling=sampling_of(run, source.codec.stop_token_ids),
            seed=f"{run.seed}:rollout",
            timeout_seconds=run.timeout_seconds,
        )
        # Closed once the loop has ended, and with it the thread that may still be reading a row.
        prompts = afterwards.enter_context(closing(source.prompts(max_length, ledger.done, report)))
        try:
            loop.run(maker.make_all(prompts, run.concurrency, keeper))
        except KeyboardInterrupt:
            raise interrupted(directory, ledger.done.num_rollouts, total) from None
    return keeper


def close(run: RolloutRun, source: PromptSource, directory: RunDirectory, keeper: Keeper) -> dict[str, Any]:
    """Sum up, select what was asked for, tell it."""
    path = directory.path / "rollouts.jsonl"
    found = summarize([path])
    counts = source.counts
    summary: dict[str, Any] = {
        "command": "rollout",
        "output": str(path),
        **found.to_dict(),
        "num_failed": keeper.num_failed,
        "num_prompts_dropped": counts.dropped,
        "num_rows_skipped": counts.skipped,
        "seconds": round(keeper.seconds, 3),
        "tokens_per_second": keeper.tokens_per_second,
    }
    if selected := write_selected(run.select, [path], directory.path):
        summary["selected"] = selected
    write_plot(directory.path / "rewards.png", found)
    write_text(directory.path / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    if changed := counts.told():
        warn(f"of {counts.rows:,} rows, {changed}")
    print_summary(summary)
    return summary


def longest(run: RolloutRun) -> int:
    """Most tokens of a prompt and its completion: what the run allows, within the model's context.

    Raises:
        ModelError: the model's configuration is not here, and the run says nothing.
    """
    try:
        context = context_length(run.model, needs_weights=False)
    except ModelError as error:
        if run.data.max_length is not None:
            return run.data.max_length
        raise ModelError(
            f"{error}. If only a server has the model, say its context: --set data.max_length=N"
        ) from error
    limit = run.data.max_length
    if limit is not None and context < limit:
        note(f"The model's context of {context} tokens is less than data.max_length={limit}: it counts.")
    return context if limit is None else min(limit, context)


def sampling_of(run: RolloutRun, stop_token_ids: tuple[int, ...]) -> SamplingParams:
    """How the run draws."""
    return SamplingParams(**run.sampling.model_dump(), stop_token_ids=stop_token_ids)


@contextmanager
def opened(loop: asyncio.Runner, workflow: Any, scorer: Scorer | None, codec: TextCodec) -> Iterator[None]:
    """Get workflow and rewards ready, before an engine takes its time to start; close them however the run ends."""
    try:
        loop.run(open_workflow(workflow, codec))
        if scorer is not None:
            loop.run(scorer.start())
        yield
    finally:
        loop.run(close_workflow(workflow))
        if scorer is not None:
            loop.run(scorer.close())


@contextmanager
def started(
    loop: asyncio.Runner, run: RolloutRun, source: PromptSource, directory: RunDirectory, max_length: int
) -> Iterator[InferenceEngine]:
    """The engine, closed however the run ends."""
    front = plugins.load("engines", run.engine.name)
    if program_of(front) is None:
        bound_kernel_caches()
        set_threads(run.device, torch_device(run.device))
    demand = Demand(run.concurrency * run.group_size, max_length)
    context = EngineContext(
        run.model, run.device, tokenizer=source.codec.tokenizer, demand=demand, directory=directory.path
    )
    note(f"Loading {run.model.path} with the engine '{run.engine.name}' ...")
    engine: InferenceEngine = front.build(run.engine, context)
    try:
        yield engine
    finally:
        loop.run(engine.close())


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM stop the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # Python takes no signals there
        yield
        return
    former = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def interrupted(directory: RunDirectory, num_done: int, total: int | None) -> RunInterrupted:
    """What is told when the user stops the run."""
    of = f" of {total:,}" if total is not None else ""
    return RunInterrupted(
        f"Interrupted: {num_done:,}{of} rollouts are in {directory.path / 'rollouts.jsonl'}. Go on with: "
        f"llmkit rollout --resume --output-dir {shlex.quote(str(directory.path))}"
    )
