"""Is a file text that llmkit reads? UTF-8, with or without a byte-order mark; anything else is named."""

import codecs

from llmkit.data.files.local_file import BLOCK, LocalFile, reading
from llmkit.errors import DataError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
SIGNATURES = {
    b"\x1f\x8b": ("gzip-compressed", "let its name end in .gz"),
    b"\x28\xb5\x2f\xfd": ("zstandard-compressed", "let its name end in .zst"),
    b"PAR1": ("a Parquet file", "set dataset.file_type=parquet"),
    b"ARROW1": ("an Arrow file", "set dataset.file_type=arrow"),
    b"\xff\xff\xff\xff": ("an Arrow stream", "set dataset.file_type=arrow"),
    b"PK\x03\x04": ("a zip archive", "unpack it"),
}
CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


def text_start(file: LocalFile) -> int:
    """Number of bytes to skip at the start of a text file: 3 for a UTF-8 byte-order mark, else 0.

    Raises:
        DataError: the file is empty, UTF-16 or UTF-32, packed or binary.
    """
    start = file.head()
    if not start:
        raise DataError(f"{file.name}: the file is empty")
    for signature, (what, way_out) in SIGNATURES.items():
        if start.startswith(signature):
            raise DataError(f"{file.name}: this is {what}, not text, whatever its name says; {way_out}")
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            raise _wrong_encoding(file, encoding)
    if b"\x00" in start:
        # Every other byte of western text is zero in UTF-16.
        zeros = (start[::2].count(0), start[1::2].count(0))
        if max(zeros) > 0.3 * len(start) and min(zeros) == 0:
            raise _wrong_encoding(file, "UTF-16")
        raise DataError(f"{file.name}: byte {start.index(0)} is zero, so this is a binary file and not text")
    return 3 if start.startswith(codecs.BOM_UTF8) else 0


def _wrong_encoding(file: LocalFile, encoding: str) -> DataError:
    return DataError(
        f"{file.name}: the file is {encoding}; llmkit reads UTF-8. Convert it: "
        f"iconv -f {encoding} -t UTF-8 {file.name} > NEW"
    )


def decode(name: str, raw: bytes, offset: int, line: int) -> str:
    """The text of bytes that begin at byte `offset`, on line `line` of a file.

    Raises:
        DataError: they are not UTF-8; names file:line:column, counted from the start of `raw`.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        start = error.start
        line += raw.count(b"\n", 0, start)
        raise not_utf8(name, line, start - raw.rfind(b"\n", 0, start), offset + start, raw[start]) from None


def not_utf8(name: str, line: int, column: int, offset: int, byte: int) -> DataError:
    """The error for text that is not UTF-8."""
    return DataError(
        f"{name}:{line}:{column}: byte {offset} (0x{byte:02x}) is not UTF-8; "
        f"if the file is Latin-1, convert it: iconv -f LATIN1 -t UTF-8 {name} > NEW"
    )


def place_of(file: LocalFile, offset: int) -> tuple[int, int]:
    """Line and column, in characters, of a byte of a text file. Reads the file up to it, for an error's message."""
    line, column = 1, 1
    with file.open() as stream, reading(file):
        while offset > 0 and (block := stream.read(min(BLOCK, offset))):
            offset -= len(block)
            line += block.count(b"\n")
            last = block.rfind(b"\n")
            column = (1 if last >= 0 else column) + len(block[last + 1 :].translate(None, CONTINUATION_BYTES))
    return line, column
