"""How a training run ends: the table, and the summary for programs."""

from typing import Any

from llmkit.distributed.place import is_main
from llmkit.train.console import print_summary
from llmkit.train.session import Session


def close_run(session: Session) -> dict[str, Any]:
    """Print the closing table and return the summary, with where everything is, as plain values."""
    if not is_main():
        return {}
    directory = session.directory
    summary = session.journal.summary()
    plots = sorted(directory.path.glob("*.png"))
    files = {"report": directory.report, **{plot.stem: plot for plot in plots}}
    if session.best_checkpoint is not None:
        files = {"best_checkpoint": session.best_checkpoint, **files}
    rows = [("run directory", str(directory.path)), *((k.replace("_", " "), str(v)) for k, v in files.items())]
    print_summary(summary, extra=rows)
    return {
        "run_directory": str(directory.path),
        "checkpoint": str(directory.checkpoints / f"step-{session.last_step}"),
        **{name: str(path) for name, path in files.items()},
        **summary.to_dict(),
    }
