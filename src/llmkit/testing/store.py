"""What every store promises: token sequences that are read as they were written, in any order."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from llmkit.data.stores.contract import Store, Tokens, TokenSequences
from llmkit.errors import LLMKitError
from llmkit.testing.front import FrontContract
from llmkit.types import Sample, Source

PLACE = Source("samples", 1)


class StoreContract(FrontContract):
    """Subclass it, set `name`, and `options` if the store needs any.

    Attributes:
        samples: what is written and read again.
    """

    kind = "stores"
    samples: ClassVar[Sequence[Sample]] = (
        Sample([5, 6, 7, 8], [0.0, 0.0, 1.0, 1.0], PLACE),
        Sample([150_000], [1.0], PLACE),
        Sample([0, 65_535, 65_536, 2], [1.0, 0.5, 0.25, 0.0], PLACE),
        Sample(list(range(3000)), [float(number % 2) for number in range(3000)], PLACE),
    )

    def build(self) -> Store:
        """The store to test."""
        return self.plugin().build(self.config())

    def test_its_files_have_names_of_their_own(self) -> None:
        suffixes = self.build().suffixes
        assert suffixes, "without a suffix its files cannot be found in a directory"
        for suffix in suffixes:
            assert suffix.startswith("."), f"write '{suffix}' with its dot"
            assert suffix == suffix.lower(), f"'{suffix}' must be in small letters; files match in any"

    def test_what_is_written_is_read_again_in_any_order(self, tmp_path: Path) -> None:
        sequences = self._written(tmp_path)
        assert len(sequences) == len(self.samples)
        assert sequences.lengths.tolist() == [len(sample.token_ids) for sample in self.samples]
        for index in [*range(len(self.samples)), *reversed(range(len(self.samples)))]:
            _check(sequences.read(index), self.samples[index], 0, None)

    def test_a_part_of_a_sequence_can_be_read(self, tmp_path: Path) -> None:
        sequences = self._written(tmp_path)
        for index, sample in enumerate(self.samples):
            length = len(sample.token_ids)
            for start, end in ((0, 1), (1, length), (length // 2, None), (length, length)):
                _check(sequences.read(index, start, end), sample, start, end)

    def test_opened_again_it_is_the_same(self, tmp_path: Path) -> None:
        first = self._written(tmp_path)
        second = self.build().open(self._path(tmp_path))
        for index in range(len(self.samples)):
            assert first.read(index).ids.tolist() == second.read(index).ids.tolist()

    def test_a_sequence_knows_its_place(self, tmp_path: Path) -> None:
        sequences = self._written(tmp_path)
        sources = [sequences.source(index) for index in range(len(sequences))]
        assert len(set(sources)) == len(sources), "two sequences have one place"
        for source in sources:
            assert Path(source.path) == self._path(tmp_path)
            assert source.line >= 1, f"{source} counts from {source.line}; lines and numbers count from 1"

    def test_it_names_the_files_that_decide_the_tokens(self, tmp_path: Path) -> None:
        files = self._written(tmp_path).files
        assert self._path(tmp_path) in files
        assert set(files) == {file for file in tmp_path.rglob("*") if file.is_file()}

    def test_a_writing_that_fails_leaves_what_was_there(self, tmp_path: Path) -> None:
        sequences = self._written(tmp_path)
        before = {file: file.read_bytes() for file in sequences.files}
        with pytest.raises(ZeroDivisionError):
            self.build().write(self._path(tmp_path), _failing(self.samples))
        assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before

    def test_it_can_be_written_over(self, tmp_path: Path) -> None:
        self._written(tmp_path)
        self.build().write(self._path(tmp_path), self.samples[:1])
        again = self.build().open(self._path(tmp_path))
        assert len(again) == 1
        _check(again.read(0), self.samples[0], 0, None)

    def test_a_file_that_was_cut_off_is_refused(self, tmp_path: Path) -> None:
        for file in self._written(tmp_path).files:
            content = file.read_bytes()
            file.write_bytes(content[: len(content) - max(1, len(content) // 3)])
            with pytest.raises(LLMKitError) as caught:
                _read_all(self.build().open(self._path(tmp_path)))
            assert file.stem in str(caught.value), f"the error does not name the file: {caught.value}"
            file.write_bytes(content)

    def test_a_file_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LLMKitError, match="nothing"):
            self.build().open(tmp_path / f"nothing{self.build().suffixes[0]}")

    def _path(self, directory: Path) -> Path:
        return directory / f"corpus{self.build().suffixes[0]}"

    def _written(self, directory: Path) -> TokenSequences:
        self.build().write(self._path(directory), iter(self.samples))
        return self.build().open(self._path(directory))


def _check(tokens: Tokens, sample: Sample, start: int, end: int | None) -> None:
    assert tokens.ids.tolist() == sample.token_ids[start:end]
    wanted = sample.loss_weights[start:end]
    if tokens.loss_weights is None:
        assert wanted == [1.0] * len(wanted), "the weights are lost"
    else:
        assert tokens.loss_weights.tolist() == wanted


def _read_all(sequences: TokenSequences) -> None:
    assert sequences.lengths.sum()
    for index in range(len(sequences)):
        sequences.read(index)


def _failing(samples: Sequence[Sample]) -> Iterator[Sample]:
    yield from samples
    raise ZeroDivisionError
