"""The engine's thread: takes commands, runs steps, hands on what was drawn."""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable

import torch

from llmkit.engines.inference.contract import EngineStats, PauseMode
from llmkit.engines.inference.native.block_pool import BlockPool, root_key
from llmkit.engines.inference.native.results import Outbox, Results, failure_of_step
from llmkit.engines.inference.native.runner import Runner
from llmkit.engines.inference.native.scheduler import Limits, Scheduler
from llmkit.engines.inference.native.sequences import Request, Sequence
from llmkit.engines.inference.native.step_inputs import StepInputs, Wanted
from llmkit.engines.inference.sampling.batch import draw, prompt_scores
from llmkit.engines.inference.transfers import pick
from llmkit.errors import EngineError

Command = Callable[[], object]


class StepLoop:
    """Everything in here happens in one thread, but `tell`, which any thread may call.

    A command takes effect between two steps.
    """

    def __init__(
        self,
        runner: Runner,
        num_blocks: int,
        limits: Limits,
        device: torch.device,
        flush: Callable[[Outbox], None] = lambda _: None,
    ) -> None:
        """Args:
        runner: with its cache allocated.
        flush: takes what came of a step.
        """
        self.version = 0
        self.num_blocks = num_blocks
        self._device = device
        self._limits = limits
        self._commands: deque[Command] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._generation = 0
        self._admits = True
        self._draws = True
        self._pausing: list[Command] = []
        self._deadlines: list[tuple[float, int, Request]] = []
        self._results = Results(lambda sequence: self._scheduler.remove(sequence), flush)
        self.runner = runner
        self._scheduler = self._new_scheduler(runner)
        self._inputs = StepInputs()

    def tell(self, command: Command) -> None:
        """Have a command carried out between two steps."""
        with self._wake:
            self._commands.append(command)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llmkit-native-engine", daemon=True)
                self._thread.start()
            self._wake.notify()

    def stats(self) -> EngineStats:
        """How it is doing; may be read from any thread."""
        scheduler = self._scheduler
        return EngineStats(
            num_running=scheduler.num_running,
            num_waiting=scheduler.num_waiting,
            cache_use=1 - scheduler.pool.num_free / scheduler.pool.num_blocks,
            num_preemptions=scheduler.num_preemptions,
            **vars(self._results.counts),
        )

    def submit(self, requests: list[Request]) -> None:
        """Command: let requests wait for their turn."""
        for request in requests:
            self._results.counts.num_prompt_tokens += request.sequences[0].num_prompt * len(request.sequences)
            for sequence in request.sequences:
                sequence.root = self._root(sequence)
                self._scheduler.add(sequence)
            if request.deadline is not None:
                heapq.heappush(self._deadlines, (request.deadline, request.rank[1], request))

    def cancel(self, request: Request) -> None:
        """Command: end all completions of a request; nobody listens any more."""
        for sequence in list(request.sequences):
            self._results.end(sequence, tells=False)

    def pause(self, mode: PauseMode, done: Command) -> None:
        """Command: hold new requests; `done` is called when the running ones are where `mode` wants them."""
        self._admits = False
        self._draws = mode != "keep"
        if mode == "abort":
            for sequence in self._scheduler.everyone():
                if sequence.admitted:
                    self._results.end(sequence)
        self._pausing.append(done)
        self._settle()

    def resume(self) -> None:
        """Command: go on; whoever still waits for a pause waits no longer."""
        self._admits = self._draws = True
        self._tell_pausing()

    def load_weights(self, version: int, *, recomputes: bool) -> None:
        """Command: tokens carry `version` from now on, and nothing that was computed before is found any more."""
        self.runner.weights_changed()
        self.version = version
        self._generation += 1
        self._scheduler.pool.forget_all()
        if recomputes:
            self._scheduler.restart(self._root)
        else:
            self._scheduler.disown(self._root)

    def change_runner(self, make: Callable[[], Runner]) -> None:
        """Command: go on with another runner; running sequences are computed again."""
        runner = make()
        runner.allocate(self.num_blocks)
        self.runner.close()
        before = self._scheduler
        before.restart(self._root)
        self.runner, self._scheduler = runner, self._new_scheduler(runner)
        self._scheduler.num_preemptions = before.num_preemptions
        for sequence in before.waiting():
            self._scheduler.add(sequence)

    def num_using(self, adapter: int) -> int:
        """Completions that go through an adapter."""
        return sum(sequence.request.adapter == adapter for sequence in self._scheduler.everyone())

    def close(self, done: Command) -> None:
        """Command: end what runs, refuse what waits, free everything, and end the thread."""
        for sequence in self._scheduler.active():
            self._results.end(sequence)
        for request in {sequence.request: None for sequence in self._scheduler.waiting()}:
            began = any(sequence.admitted for sequence in request.sequences)
            self._results.fail(
                request, None if began else EngineError("the engine was closed before this request began")
            )
        self.runner.close()
        self._closing = True
        self._results.hand_on()
        done()

    def _new_scheduler(self, runner: Runner) -> Scheduler:
        return Scheduler(BlockPool(self.num_blocks), self._limits, on_release=getattr(runner, "forget", None))

    def _root(self, sequence: Sequence) -> bytes:
        return root_key(sequence.request.adapter, sequence.request.asked.cache_salt, self._generation)

    def _run(self) -> None:
        while not self._closing:
            self._take_commands()
            self._expire()
            if not self._closing and self._has_work():
                self._step()
            self._settle()
            self._results.hand_on()

    def _has_work(self) -> bool:
        scheduler = self._scheduler
        if not self._draws:
            return False
        waits = bool(scheduler.num_waiting) if self._admits else self._owes()
        return bool(scheduler.running) or waits

    def _owes(self) -> bool:
        """Whether some that wait had begun before."""
        return any(sequence.admitted for sequence in self._scheduler.waiting())

    def _take_commands(self) -> None:
        """Carry out what was told; sleeps while there is nothing to do."""
        with self._wake:
            while not self._commands and not self._has_work():
                left = self._deadlines[0][0] - time.monotonic() if self._deadlines else None
                if left is not None and left <= 0:
                    break
                self._wake.wait(left)
            commands, self._commands = self._commands, deque()
        for command in commands:
            command()

    def _expire(self) -> None:
        """End the completions whose time is over."""
        now = time.monotonic()
        while self._deadlines and (self._deadlines[0][0] <= now or not self._deadlines[0][2].sequences):
            _, _, request = heapq.heappop(self._deadlines)
            for sequence in list(request.sequences):
                self._results.end(sequence)

    def _settle(self) -> None:
        """Say that a pause has come about."""
        if self._pausing and not (self._draws and (self._scheduler.running or self._owes())):
            self._results.hand_on()
            self._tell_pausing()

    def _tell_pausing(self) -> None:
        pausing, self._pausing = self._pausing, []
        for done in pausing:
            done()

    def _step(self) -> None:
        try:
            plan = self._scheduler.plan(admits_new=self._admits)
            assert plan.counts, "there is work, and none of it can be done"
            if plan.copies:
                self.runner.copy_blocks(*map(list, zip(*plan.copies, strict=True)))
            step, wanted = self._inputs.build(plan)
            logits = self.runner.forward(step)
            self._scheduler.computed(plan)
            self._score_prompts(logits, wanted)
            self._draw(logits, wanted)
        except Exception as error:  # noqa: BLE001 - whatever the model raised belongs to the requests in the step
            self._fail_all(error)

    def _score_prompts(self, logits: torch.Tensor, wanted: Wanted) -> None:
        for sequence, rows in wanted.scored:
            known = len(sequence.prompt_scores)
            targets = sequence.token_ids[known : known + len(rows)]
            sequence.prompt_scores += prompt_scores(logits[rows.start : rows.stop], targets, sequence.sampling)

    def _draw(self, logits: torch.Tensor, wanted: Wanted) -> None:
        """One token for each sequence whose tokens are all computed, and for those that share its prompt."""
        if not wanted.draws:
            return
        sequences: list[Sequence] = []
        rows: list[int] = []
        for sequence, row in zip(wanted.draws, wanted.rows, strict=True):
            family = [sequence, *self._scheduler.fork(sequence)] if sequence.num_drawn == 0 else [sequence]
            sequences += family
            rows += [row] * len(family)
        if rows != list(range(len(logits))):
            logits = pick(logits, rows)
        drawn = draw(logits, [sequence.state for sequence in sequences], getattr(self.runner, "draw", None))
        for row, error in drawn.failures.items():
            self._results.fail(sequences[row].request, error)
        for sequence, token, scores in zip(sequences, drawn.token_ids, drawn.scores, strict=True):
            if sequence.stop_reason is None:
                self._results.take(sequence, token, scores, self.version)

    def _fail_all(self, error: Exception) -> None:
        """The step failed: those that run end with its error, and nothing of it is found any more."""
        # A step that cannot even be planned would be tried for ever if those that wait for it stayed.
        active = self._scheduler.active() or self._scheduler.waiting()
        for request in {sequence.request: None for sequence in active}:
            failed = failure_of_step(error, len(active))
            failed.__cause__ = error
            self._results.fail(request, failed)
        self._generation += 1
        self._scheduler.pool.forget_all()
        self._scheduler.disown(self._root)
        self._inputs = StepInputs()
