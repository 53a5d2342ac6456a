"""What the model computes next: prompts in chunks between single tokens, within a budget, best rank first."""

import heapq
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from llmkit.engines.inference.native.block_pool import BlockPool
from llmkit.engines.inference.native.runner import BLOCK_SIZE
from llmkit.engines.inference.native.sequences import Sequence
from llmkit.engines.inference.native.sharing import Sharing


class Limits(NamedTuple):
    """What one step may hold.

    Attributes:
        max_sequences: completions that are drawn side by side.
        max_step_tokens: tokens that go through the model together.
        keeps_prefixes: whether full blocks can be found by sequences that come later.
        shares_blocks: whether several sequences may hold one block, so that a prompt is computed once for a group.
        divides_prompts: whether a prompt may go through the model in parts.
    """

    max_sequences: int
    max_step_tokens: int
    keeps_prefixes: bool = True
    shares_blocks: bool = True
    divides_prompts: bool = True


@dataclass
class Plan:
    """One step.

    Attributes:
        counts: how many of its next tokens each sequence computes.
        copies: blocks to copy before that, (from, to).
    """

    counts: dict[Sequence, int] = field(default_factory=dict)
    copies: list[tuple[int, int]] = field(default_factory=list)


def blocks_for(num_tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-num_tokens // BLOCK_SIZE)


class Scheduler:
    """Sequences wait, run, and may have to give their blocks to others that rank before them and start again.

    Nothing here starves: ranks are fixed when a request arrives, and the first in rank always gets on.
    """

    def __init__(self, pool: BlockPool, limits: Limits, *, on_release: Callable[[int], None] | None = None) -> None:
        """Args:
        on_release: told the first block of each sequence that gives up its blocks.
        """
        self.pool = pool
        self._on_release = on_release
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self._limits = limits
        self._waiting: list[tuple[tuple[float, int], int, Sequence]] = []
        self._sharing = Sharing(pool, shares_blocks=limits.shares_blocks, keeps_prefixes=limits.keeps_prefixes)

    @property
    def num_waiting(self) -> int:
        """Sequences that hold nothing yet, or nothing any more."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Sequences in the model, those that wait for a prompt that another one computes among them."""
        return len(self.running) + sum(len(sequence.followers) for sequence in self.running)

    def add(self, sequence: Sequence) -> None:
        """Put it in the queue."""
        heapq.heappush(self._waiting, (sequence.rank, sequence.index, sequence))

    def waiting(self) -> list[Sequence]:
        """Those in the queue."""
        return [sequence for _, _, sequence in self._waiting]

    def everyone(self) -> list[Sequence]:
        """All sequences, whatever they do."""
        return [*self.active(), *self.waiting()]

    def active(self) -> list[Sequence]:
        """Those that run, and those that follow them."""
        return [one for sequence in self.running for one in (sequence, *sequence.followers)]

    def plan(self, *, admits_new: bool = True) -> Plan:
        """The next step; blocks that it writes to are taken.

        Args:
            admits_new: whether those whose turn has never come may begin.
        """
        plan = Plan()
        left = self._limits.max_step_tokens
        preemptions = self.num_preemptions
        drawing = [sequence for sequence in self.running if sequence.num_missing == 1]
        reading = [sequence for sequence in self.running if sequence.num_missing > 1]
        for sequence in drawing + reading:
            # Those before it may have taken its blocks.
            if preemptions == self.num_preemptions or sequence in self.running:
                left -= self._continue(sequence, left, plan)
        if preemptions == self.num_preemptions:
            self._admit(plan, left, admits_new)
        return plan

    def computed(self, plan: Plan) -> None:
        """The step's keys and values are in the cache."""
        for sequence, count in plan.counts.items():
            full = sequence.num_computed // BLOCK_SIZE
            sequence.num_computed += count
            self._sharing.computed(sequence, full, sequence.num_computed // BLOCK_SIZE)

    def fork(self, leader: Sequence) -> list[Sequence]:
        """The prompt is computed: its followers go on from it, holding the same blocks."""
        followers, leader.followers = leader.followers, []
        self._sharing.stop_leading(leader)
        for one in followers:
            for block in leader.blocks:
                self.pool.share(block)
            one.blocks = list(leader.blocks)
            one.keys = list(leader.keys)
            one.num_computed = leader.num_computed
            insort(self.running, one, key=_place)
        return followers

    def remove(self, sequence: Sequence) -> None:
        """It has ended; it may wait, run or follow. Whoever followed it is led by the next one."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._sharing.stop_leading(sequence)
            if sequence.followers:
                self._succeed(sequence)
            else:
                self._release(sequence)
        elif leader := next((one for one in self.running if sequence in one.followers), None):
            leader.followers.remove(sequence)
        else:
            self._waiting = [entry for entry in self._waiting if entry[2] is not sequence]
            heapq.heapify(self._waiting)

    def restart(self, root_of: Callable[[Sequence], bytes | None]) -> None:
        """Running sequences lose what they computed and begin again; what they drew stays."""
        for sequence in list(self.running):
            self._preempt(sequence, Plan())
        for sequence in self.waiting():
            sequence.lose_cache(root_of(sequence))

    def disown(self, root_of: Callable[[Sequence], bytes | None]) -> None:
        """Running sequences go on, but nobody finds what they compute from now on."""
        for sequence in self.running:
            self._sharing.stop_leading(sequence)
        for sequence in self.active():
            sequence.root = None
            sequence.keys.clear()
        for sequence in self.waiting():
            sequence.lose_cache(root_of(sequence))

    def _continue(self, sequence: Sequence, left: int, plan: Plan) -> int:
        """Plan the next tokens of a running sequence; returns how many."""
        count = min(sequence.num_missing, left) if self._limits.divides_prompts else sequence.num_missing
        if count <= 0 or not self._hold(sequence, count, plan):
            return 0
        plan.counts[sequence] = count
        return count

    def _hold(self, sequence: Sequence, count: int, plan: Plan) -> bool:
        """Take the blocks that the next `count` tokens are written to; False if the sequence had to give up its own."""
        first = sequence.num_computed // BLOCK_SIZE
        shared = first < len(sequence.blocks) and self.pool.references(sequence.blocks[first]) > 1
        missing = blocks_for(sequence.num_computed + count) - len(sequence.blocks)
        while self.pool.num_free < missing + shared:
            victim = self.running[-1]
            self._preempt(victim, plan)
            self.num_preemptions += 1
            if victim is sequence:
                return False
            shared = shared and self.pool.references(sequence.blocks[first]) > 1
        if shared:
            copied, sequence.blocks[first] = sequence.blocks[first], self.pool.take()
            plan.copies.append((copied, sequence.blocks[first]))
            self.pool.release(copied)
        sequence.blocks += [self.pool.take() for _ in range(missing)]
        return True

    def _preempt(self, victim: Sequence, plan: Plan) -> None:
        plan.counts.pop(victim, None)
        own = set(victim.blocks)
        plan.copies = [(source, target) for source, target in plan.copies if target not in own]
        self.running.remove(victim)
        self._sharing.stop_leading(victim)
        self._release(victim)
        victim.lose_cache(victim.root)
        followers, victim.followers = victim.followers, []
        for sequence in (victim, *followers):
            self.add(sequence)

    def _admit(self, plan: Plan, left: int, admits_new: bool) -> None:
        """Let those that wait begin, as long as there is room."""
        held_back = []
        while self._waiting and self.num_running < self._limits.max_sequences:
            entry = heapq.heappop(self._waiting)
            sequence = entry[2]
            if not (admits_new or sequence.admitted):
                held_back.append(entry)
                continue
            leader = self._sharing.leader_of(sequence)
            if leader is not None:
                sequence.admitted = True
                leader.followers.append(sequence)
                continue
            prefix = self._sharing.find_prefix(sequence) if left > 0 else []
            if prefix is None:
                held_back.append(entry)
                continue
            if left <= 0 or not self._fits(sequence, prefix):
                held_back.append(entry)
                break
            left -= self._begin(sequence, prefix, left, plan)
        for entry in held_back:
            heapq.heappush(self._waiting, entry)

    def _begin(self, sequence: Sequence, prefix: list[int], left: int, plan: Plan) -> int:
        for block in prefix:
            self.pool.share(block)
        sequence.admitted = True
        sequence.blocks = list(prefix)
        sequence.num_computed = len(prefix) * BLOCK_SIZE
        if sequence.num_cached is None:
            sequence.num_cached = sequence.num_computed
        insort(self.running, sequence, key=_place)
        self._sharing.lead(sequence)
        return self._continue(sequence, left, plan)

    def _fits(self, sequence: Sequence, prefix: list[int]) -> bool:
        """Whether there are blocks for all of its tokens, and one more for each that runs."""
        taken = sum(self.pool.references(block) == 0 for block in prefix)
        needed = blocks_for(len(sequence.token_ids)) - len(prefix) + taken
        return not self.running or self.pool.num_free >= needed + self.num_running

    def _succeed(self, ended: Sequence) -> None:
        """The first follower takes over what was computed so far."""
        heir, *ended_followers = ended.followers
        heir.blocks, heir.keys, heir.num_computed = ended.blocks, list(ended.keys), ended.num_computed
        heir.num_cached = ended.num_cached
        heir.followers, ended.followers, ended.blocks = ended_followers, [], []
        insort(self.running, heir, key=_place)
        self._sharing.lead(heir)

    def _release(self, sequence: Sequence) -> None:
        if self._on_release is not None and sequence.blocks:
            self._on_release(sequence.blocks[0])
        for block in reversed(sequence.blocks):
            self.pool.release(block)
        sequence.blocks = []


def _place(sequence: Sequence) -> tuple[tuple[float, int], int]:
    return (sequence.rank, sequence.index)
