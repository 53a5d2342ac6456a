"""Begin and end with a workflow."""

from typing import Any

from llmkit.data.codec import TextCodec
from llmkit.rollout.contract import Workflow


async def open_workflow(workflow: Workflow, codec: TextCodec) -> None:
    """Let it get ready, if there is something to get ready.

    Raises:
        LLMKitError: it cannot work with this tokenizer, or on this machine.
    """
    opening: Any = getattr(workflow, "open", None)
    if opening is not None:
        await opening(codec)


async def close_workflow(workflow: Workflow) -> None:
    """Let it free what it holds."""
    closing: Any = getattr(workflow, "close", None)
    if closing is not None:
        await closing()
