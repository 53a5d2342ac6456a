"""`llmkit rollout --dry-run`: everything that can be known before a model is loaded."""

from typing import Any

from llmkit.data.turns import prompt_messages
from llmkit.rollout.prompts import Prompt, PromptSource
from llmkit.terminal import note, visible


def look(source: PromptSource, first: Prompt, max_length: int) -> dict[str, Any]:
    """Show the first prompt and what the run would be; returns it as plain values."""
    run, record = source.run, first.record
    prompt_ids = source.codec.prompt_ids(prompt_messages(record), record.source, record.tools)
    rows = source.num_rows
    found = {
        "dry_run": True,
        "model": run.model.path,
        "engine": run.engine.name,
        "workflow": run.workflow.name,
        "reward": None if run.reward is None else run.reward.name,
        "num_rows": rows,
        "num_rollouts": None if rows is None else rows * run.group_size,
        "max_length": max_length,
        "sampling": run.sampling.model_dump(mode="json"),
        "first_source": str(record.source),
        "first_prompt": source.codec.decode(prompt_ids),
        "first_prompt_length": len(prompt_ids),
    }
    note("Dry run: nothing was sampled")
    for name, value in found.items():
        if name not in ("dry_run", "first_prompt", "sampling"):
            note(f"{name.replace('_', ' '):<20} {'not known' if value is None else value}")
    for name, value in found["sampling"].items():
        note(f"{name.replace('_', ' '):<20} {value}")
    note(f"\nThe first prompt, from {record.source}:\n{visible(found['first_prompt'])}")
    return found
