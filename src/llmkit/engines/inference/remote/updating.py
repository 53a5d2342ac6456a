"""New weights for all servers, while nothing is drawn."""

import asyncio
from collections.abc import Sequence

from llmkit.engines.inference.remote.contract import Dialect, WeightSync
from llmkit.engines.inference.remote.members import Member, Members
from llmkit.engines.inference.remote.watching import Watch
from llmkit.errors import EngineError


async def update_weights(members: Members, watch: Watch, dialect: Dialect, sync: WeightSync, version: int) -> None:
    """Pause, update, resume, compare. Servers that do not answer get the weights when they are back.

    A server that goes away meanwhile does not keep the others from it: they begin anew.

    Raises:
        EngineError: it failed with servers that do answer, or none is left.
    """
    async with watch.lock:
        answering = await _answering(members, watch)
        while True:
            starts = [members.num_starts(member) for member in answering]
            try:
                await _update(answering, dialect, sync, version)
            except EngineError:
                left = await _answering(members, watch)
                if not left or len(left) >= len(answering):
                    raise
                answering = left
                continue
            break
        members.version = version
        for member, num_starts in zip(answering, starts, strict=True):
            member.num_starts, member.version = num_starts, version
            members.regain(member)


async def _update(members: Sequence[Member], dialect: Dialect, sync: WeightSync, version: int) -> None:
    links = [member.link for member in members]
    for member in members:
        member.is_paused = True
    await asyncio.gather(*(dialect.pause(link, "abort") for link in links))
    try:
        await sync.update(links, version)
    except BaseException:
        # What failed is what the caller is to hear of; a server that stays paused would not answer the next attempt.
        await asyncio.gather(*(dialect.resume(link) for link in links), return_exceptions=True)
        raise
    await asyncio.gather(*(dialect.resume(link) for link in links))
    await sync.verify(links, version)
    for member in members:
        member.is_paused = False


async def _answering(members: Members, watch: Watch) -> list[Member]:
    answers = await asyncio.gather(*(watch.answers(member) for member in members.all))
    found = [member for member, answers_now in zip(members.all, answers, strict=True) if answers_now]
    if not found:
        raise EngineError("sending weights: no server answers: " + "; ".join(str(one.trouble) for one in members.all))
    return found
