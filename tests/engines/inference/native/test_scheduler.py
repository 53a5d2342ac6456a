"""The scheduler without a model: what it plans, and that its blocks always add up."""

from collections import Counter
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.engines.inference.contract import GenerationRequest
from llmkit.engines.inference.native.block_pool import BlockPool, root_key
from llmkit.engines.inference.native.runner import BLOCK_SIZE
from llmkit.engines.inference.native.scheduler import Limits, Plan, Scheduler
from llmkit.engines.inference.native.sequences import Request, Sequence
from llmkit.engines.inference.native.terms import Terms
from llmkit.engines.inference.sampling.context import SamplingContext
from llmkit.engines.inference.sampling.state import SamplerState
from llmkit.types import SamplingParams

ROOT = root_key(0, "", 0)
CONTEXT = SamplingContext(vocab_size=1000)
orders = count()


def make(length: int, *, first: int = 0, priority: float = 0, num_completions: int = 1) -> list[Sequence]:
    """The sequences of a request for a prompt of `length` tokens."""
    sampling = SamplingParams()
    prompt = [(first + place) % 1000 for place in range(length)]
    request = Request(GenerationRequest(prompt, sampling), lambda _: None, streams=False, rank=(priority, next(orders)))
    request.sequences = [
        Sequence(request, index, sampling, SamplerState(sampling, 0, prompt, CONTEXT), None, list(prompt), length,
                 root=ROOT)
        for index in range(num_completions)
    ]  # fmt: skip
    return request.sequences


def scheduler_of(num_blocks: int, **limits: int) -> Scheduler:
    given_limits = {"max_sequences": 16, "max_step_tokens": 64, **limits}
    return Scheduler(BlockPool(num_blocks), Limits(**given_limits))


def run(scheduler: Scheduler, plan: Plan) -> None:
    """Do what a step does: every sequence whose tokens are computed draws one."""
    scheduler.computed(plan)
    for sequence in list(plan.counts):
        if sequence.num_missing == 0:
            family = [sequence, *scheduler.fork(sequence)] if sequence.num_drawn == 0 else [sequence]
            for one in family:
                one.token_ids.append(one.index)


def check(scheduler: Scheduler) -> None:
    """References are those of the sequences that run, and each has the blocks for what it computed."""
    held = Counter(block for sequence in scheduler.running for block in sequence.blocks)
    pool = scheduler.pool
    assert [pool.references(block) for block in range(pool.num_blocks)] == [held[b] for b in range(pool.num_blocks)]
    for sequence in scheduler.running:
        assert len(set(sequence.blocks)) == len(sequence.blocks)
        assert len(sequence.blocks) * BLOCK_SIZE >= sequence.num_computed
    assert all(not sequence.blocks for sequence in scheduler.waiting())


def check_writes(scheduler: Scheduler, plan: Plan) -> None:
    """Nobody writes to a block that another one holds."""
    written = [
        sequence.blocks[place]
        for sequence, tokens in plan.counts.items()
        for place in range(sequence.num_computed // BLOCK_SIZE, -(-(sequence.num_computed + tokens) // BLOCK_SIZE))
    ]
    assert all(scheduler.pool.references(block) == 1 for block in written)
    assert len(set(written)) == len(written)
    targets = [target for _, target in plan.copies]
    assert set(targets) <= set(written)
    assert len(set(targets)) == len(targets)


def test_a_long_prompt_goes_through_in_parts_beside_sequences_that_draw():
    scheduler = scheduler_of(100, max_step_tokens=40)
    (short,), (long,) = make(10), make(100, first=500)
    scheduler.add(short)
    scheduler.add(long)
    parts = []
    for _ in range(4):
        plan = scheduler.plan()
        parts.append((plan.counts.get(short), plan.counts.get(long)))
        run(scheduler, plan)
    assert parts == [(10, 30), (1, 39), (1, 31), (1, 1)]


def test_a_group_computes_its_prompt_once_and_parts_where_it_draws():
    scheduler = scheduler_of(100)
    group = make(20, num_completions=3)
    for sequence in group:
        scheduler.add(sequence)
    plan = scheduler.plan()
    assert plan.counts == {group[0]: 20}
    run(scheduler, plan)
    assert scheduler.pool.references(group[0].blocks[1]) == 3
    plan = scheduler.plan()
    assert plan.counts == dict.fromkeys(group, 1)
    # The last one to write keeps the half-full block; the others copy it.
    assert [source for source, _ in plan.copies] == [group[2].blocks[1]] * 2
    assert scheduler.pool.references(group[0].blocks[0]) == 3
    check(scheduler)


def test_a_later_prompt_that_begins_alike_waits_for_the_blocks_and_finds_them():
    scheduler = scheduler_of(100, max_step_tokens=1000)
    (first,), (second,) = make(40), make(50)
    scheduler.add(first)
    scheduler.add(second)
    assert list(scheduler.plan().counts.items()) == [(first, 40)]
    run(scheduler, Plan({first: 40}))
    plan = scheduler.plan()
    assert plan.counts == {first: 1, second: 50 - 32}
    assert second.num_cached == 32


def test_when_blocks_run_out_the_last_in_rank_begins_again():
    scheduler = scheduler_of(4)
    (first,), (second,) = make(16), make(17, first=500)
    scheduler.add(first)
    scheduler.add(second)
    run(scheduler, scheduler.plan())
    assert scheduler.running == [first, second]
    while first.num_drawn < 47:
        run(scheduler, scheduler.plan())
        check(scheduler)
    assert first.num_computed == 62
    assert scheduler.num_preemptions > 0
    assert second.num_drawn > 0, "what was drawn before stays"
    assert (second.num_computed, second.blocks) == (0, [])


def test_a_better_priority_goes_first_and_age_makes_up_for_it():
    scheduler = scheduler_of(100, max_sequences=1)
    (old,), (new,) = make(5, priority=3), make(5, first=9, priority=2)
    scheduler.add(old)
    scheduler.add(new)
    assert list(scheduler.plan().counts) == [new]


def test_a_stream_of_better_priorities_holds_nobody_up_for_longer_than_they_age():
    # One arrives each second, and each takes more steps than that; the first has priority 3, all others 0.
    terms = Terms(aging_seconds=4.0)
    scheduler = scheduler_of(200, max_sequences=2)
    ((patient,), *others) = (
        make(5, first=7 * second, priority=terms.rank(3 if second == 0 else 0, second)) for second in range(64)
    )
    scheduler.add(patient)
    begun: list[Sequence] = []
    for (newcomer,) in others:
        scheduler.add(newcomer)
        plan = scheduler.plan()
        begun += [sequence for sequence in plan.counts if sequence not in begun]
        run(scheduler, plan)
        for sequence in [one for one in scheduler.running if one.num_drawn >= 3]:
            scheduler.remove(sequence)
    # Those who came within 3 * 4 seconds go first; two were begun with it or before it was overtaken.
    assert patient in begun
    assert begun.index(patient) <= 12
    assert scheduler.num_waiting > 10, "there was never a lull"


def test_who_leads_a_group_may_leave_before_the_prompt_is_computed():
    scheduler = scheduler_of(100, max_step_tokens=16)
    group = make(40, num_completions=3)
    for sequence in group:
        scheduler.add(sequence)
    run(scheduler, scheduler.plan())
    scheduler.remove(group[0])
    check(scheduler)
    assert scheduler.running == [group[1]]
    assert group[1].num_computed == 16
    assert group[1].followers == [group[2]]
    run(scheduler, scheduler.plan())
    run(scheduler, scheduler.plan())
    assert [sequence.num_drawn for sequence in group] == [0, 1, 1]


ASKED = st.tuples(st.integers(1, 60), st.integers(0, 2), st.integers(0, 2), st.integers(1, 4))
MOVES = st.lists(st.one_of(ASKED, st.integers(0, 5)), max_size=60)


@settings(max_examples=80, deadline=None)
@given(MOVES, st.integers(8, 40), st.integers(16, 64))
def test_whatever_comes_and_goes_blocks_add_up_and_all_are_served(moves, num_blocks, budget):
    scheduler = scheduler_of(num_blocks, max_sequences=6, max_step_tokens=budget)
    for move in moves:
        if isinstance(move, tuple):
            length, first, priority, completions = move
            for sequence in make(length, first=100 * first, priority=priority, num_completions=completions):
                scheduler.add(sequence)
        elif move == 0 and scheduler.everyone():
            scheduler.remove(scheduler.everyone()[len(moves) % len(scheduler.everyone())])
        elif move == 1:
            scheduler.restart(lambda _: ROOT)
        elif move == 2:
            scheduler.pool.forget_all()
            scheduler.disown(lambda _: root_key(0, "", 1))
        else:
            _step(scheduler)
        check(scheduler)
    for _ in range(3000):
        if not scheduler.everyone():
            break
        _step(scheduler)
    assert not scheduler.everyone()
    assert scheduler.pool.num_free == num_blocks


def _step(scheduler: Scheduler) -> None:
    plan = scheduler.plan()
    assert bool(plan.counts) == bool(scheduler.everyone())
    check(scheduler)
    check_writes(scheduler, plan)
    run(scheduler, plan)
    for sequence in [one for one in scheduler.running if one.num_drawn >= 20]:
        scheduler.remove(sequence)
