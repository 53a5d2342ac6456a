"""Packing by TRL's own `pack_dataset`, best fit decreasing; it also moves the tokens, which are one byte each here."""

import tempfile
from typing import Any

from .serving import Answer, serve, timed


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Make a table with rows of the given lengths.

    Args:
        settings: `lengths` a NumPy file, `capacity` of a bin, and `batch_rows` that `pack_dataset` sees at a time: 1000
            unless it is told otherwise, -1 for all.
    """
    import datasets
    import numpy as np
    import pyarrow as pa
    from trl import pack_dataset  # pyright: ignore[reportMissingImports] - in an environment of its own

    datasets.disable_caching()
    datasets.disable_progress_bars()
    lengths = np.load(settings["lengths"])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    tokens = pa.array(np.zeros(offsets[-1], dtype=np.int8))
    table = pa.table({"input_ids": pa.ListArray.from_arrays(pa.array(offsets), tokens)})
    directory = tempfile.mkdtemp(dir=settings["directory"])
    datasets.Dataset(table).save_to_disk(directory)
    rows = datasets.load_from_disk(directory)
    options = {"batch_size": settings["batch_rows"]}

    def run() -> Answer:
        seconds, packed = timed(lambda: pack_dataset(rows, settings["capacity"], strategy="bfd", map_kwargs=options))
        return {"seconds": seconds, "num_bins": len(packed)}

    return {"run": run}


def main() -> None:
    """Work until standard input ends."""
    serve(prepare)
