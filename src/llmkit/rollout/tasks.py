"""Tasks that stand and fall together."""

import asyncio


class Tasks(asyncio.TaskGroup):
    """A task group that raises the first error as it is instead of wrapped in an exception group."""

    async def __aexit__(self, *exception: object) -> None:
        try:
            await super().__aexit__(*exception)  # type: ignore[arg-type] - the three values of a with block
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
