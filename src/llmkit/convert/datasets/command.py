"""`llmkit convert dataset`: read rows, choose, rewrite, write; or list what cannot be."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from llmkit import plugins
from llmkit.convert.datasets.expression import Condition
from llmkit.convert.datasets.json_tables import JSONTables, is_json_lines
from llmkit.convert.datasets.passes import Choice, Item, Rows, open_source
from llmkit.convert.datasets.tables import TYPES, write_tables
from llmkit.convert.datasets.writing import STORES, sample_of, type_of, write_rows, write_store
from llmkit.convert.output import check_output, new_files
from llmkit.convert.record import MANIFEST, Conversion, describe_files
from llmkit.data.contract import Formatter, Sized
from llmkit.data.files.find import find_files
from llmkit.errors import ConfigError, DataError

SHOWN = 20


@dataclass(frozen=True)
class DatasetRequest:
    """What to convert.

    Attributes:
        inputs: files, directories or patterns; or one token store.
        output: the file to write; with `splits` its name gets each split's.
        reader: formatter to read with.
        writer: formatter to write with; None copies rows as they are.
        input_type: how to read the files, whatever their names end in.
        choice: which rows are written.
        where: the condition as it was given.
        splits: share of the rows for each name; empty writes one file.
        skip_faulty: leave rows out that cannot be read or held, and list them.
        overwrite: replace files that are there.
    """

    inputs: tuple[Path, ...]
    output: Path
    reader: str = "auto"
    writer: str | None = None
    input_type: str | None = None
    choice: Choice = field(default_factory=Choice)
    where: str | None = None
    splits: Mapping[str, float] = field(default_factory=dict)
    skip_faulty: bool = False
    overwrite: bool = False


def convert_dataset(request: DatasetRequest) -> dict[str, Any]:
    """Write the rows; returns what the manifest says.

    Raises:
        ConfigError: an option is wrong, or the output is in the way.
        DataError: a row cannot be read or held; nothing is written then.
        ConvertError: the disk is full, or a file cannot be written.
    """
    file_type = type_of(request.output)
    names = output_names(request)
    files = _input_files(request)
    for name in [*names.values(), request.output.name + f".{MANIFEST}"]:
        check_output(request.output.with_name(name), files, overwrite=request.overwrite)
    source = open_source(list(request.inputs), request.input_type)
    writer = request.writer
    if writer is None and (isinstance(source, Sized) or file_type in STORES.values()):
        writer = "tokens"
    rows = Rows(source, _formatter(request.reader) if writer else None, _formatter(writer), _choice(request))
    conversion = Conversion("dataset", str(request.output))
    with new_files(request.output, files, overwrite=request.overwrite) as partial:
        with _placed(request.output):
            rows.draw()
        counts: dict[str, int] = {}
        for split, name in names.items():
            with _placed(request.output.with_name(name)):
                counts[name] = _write(partial.with_name(name), file_type, rows, request, split)
        _check(rows, request, sum(counts.values()))
        written = sorted(partial.parent.iterdir())
        conversion.inputs = {str(file): describe_files([file], file.parent)[file.name] for file in files}
        conversion.options = _options(request, rows, file_type, writer)
        conversion.checks = {"rows_written": counts, **asdict(rows.tally)}
        document = conversion.document() | {"files": describe_files(written, partial.parent)}
        conversion.write(partial.with_name(f"{request.output.name}.{MANIFEST}"), document)
    return document


def output_names(request: DatasetRequest) -> dict[str, str]:
    """The name of the file of each split; of the only one where nothing is divided."""
    path = request.output
    return {split: f"{path.stem}-{split}{path.suffix}" for split in request.splits} or {"": path.name}


def split_of(index: int, shares: Mapping[str, float], seed: int) -> str:
    """The split of a row by its number, the same in every pass."""
    digest = hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()
    drawn = int.from_bytes(digest, "big") / 2**64 * sum(shares.values())
    for name, share in shares.items():
        if drawn < share:
            return name
        drawn -= share
    return list(shares)[-1]


def _write(path: Path, file_type: str, rows: Rows, request: DatasetRequest, split: str) -> int:
    def items() -> Iterator[Item]:
        for index, item in enumerate(rows):
            if not split or split_of(index, request.splits, request.choice.seed) == split:
                yield item

    if file_type in TYPES and not split and rows.are_copied and is_json_lines(rows.source):
        return write_tables(path, file_type, JSONTables(rows.source, rows.begin))
    if file_type in STORES.values():
        return write_store(path, file_type, (sample_of(item.record) for item in items() if item.record is not None))
    return write_rows(path, file_type, lambda: (item.values for item in items()))


def _choice(request: DatasetRequest) -> Choice:
    return replace(request.choice, where=None if request.where is None else Condition(request.where))


def _formatter(name: str | None) -> Formatter | None:
    if name is None:
        return None
    plugin = plugins.load("formatters", name)
    return plugin.build(plugin.Config())


def _input_files(request: DatasetRequest) -> list[Path]:
    first = request.inputs[0]
    if len(request.inputs) == 1 and first.suffix.lower() in STORES and request.input_type is None:
        if not first.is_file():
            raise DataError(f"{first}: no such file")
        beside = [first.with_suffix(suffix) for suffix in (".json", ".ends", ".weights")]
        return [first, *(file for file in beside if file.is_file() and first.suffix == ".bin")]
    found = find_files([str(path) for path in request.inputs], None, request.input_type)  # type: ignore[arg-type]
    return [file.path for file in found]


def _check(rows: Rows, request: DatasetRequest, num_written: int) -> None:
    tally = rows.tally
    if tally.faulty and not request.skip_faulty:
        listed = "\n  ".join(tally.faults[:SHOWN])
        more = f"\n  and {tally.faulty - SHOWN} more" if tally.faulty > SHOWN else ""
        raise DataError(
            f"{tally.faulty} of {tally.read} rows cannot be converted, and nothing was written; --skip-faulty leaves "
            f"them out:\n  {listed}{more}"
        )
    if not num_written:
        raise DataError(
            f"no row is left of {tally.read}: {tally.filtered} filtered, {tally.repeated} repeated, {tally.faulty} "
            "faulty; nothing was written"
        )


def _options(request: DatasetRequest, rows: Rows, file_type: str, writer: str | None) -> dict[str, Any]:
    module = type(rows.reader).__module__.rpartition(".")[2] if rows.reader is not None else None
    choice = {key: value for key, value in asdict(request.choice).items() if key != "where"}
    return {"from": module, "to": writer, "type": file_type, "where": request.where, **choice,
            "splits": dict(request.splits), "skip_faulty": request.skip_faulty}  # fmt: skip


@contextmanager
def _placed(path: Path) -> Iterator[None]:
    """Say of which file an error is that does not name one."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def parse_splits(given: list[str]) -> dict[str, float]:
    """`train=0.9` and `test=0.1` as shares.

    Raises:
        ConfigError: one is no share, or they are more than all rows.
    """
    shares: dict[str, float] = {}
    for text in given:
        name, _, share = text.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            shares[name] = -1.0
        if not name.replace("_", "").replace("-", "").isalnum() or not 0 < shares[name] <= 1:
            raise ConfigError(f"--split {text}: give a name and a share, such as train=0.9")
    if len(shares) < len(given) or (shares and (len(shares) < 2 or abs(sum(shares.values()) - 1) > 1e-6)):
        raise ConfigError(f"--split {' '.join(given)}: name at least two splits, whose shares add up to 1")
    return shares
