"""Is a file text that llmkit reads? UTF-8, with or without a byte-order mark; anything else is named."""

import codecs
from pathlib import Path

from llmkit.errors import DataError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
SIGNATURES = {
    b"\x1f\x8b": "gzip-compressed",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet file",
    b"\x28\xb5\x2f\xfd": "zstandard-compressed",
    b"ARROW1": "an Arrow file",
}


def text_start(path: Path, start: bytes) -> int:
    """Number of bytes to skip at the start of a text file: 3 for a UTF-8 byte-order mark, else 0.

    Args:
        path: the file, for messages.
        start: its first few thousand bytes.
    Raises:
        DataError: the file is empty, UTF-16 or UTF-32, compressed or binary.
    """
    if not start:
        raise DataError(f"{path}: the file is empty")
    for signature, what in SIGNATURES.items():
        if start.startswith(signature):
            raise DataError(f"{path}: this is {what}, not text; unpack it or give it its true extension")
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            raise _wrong_encoding(path, encoding)
    if b"\x00" in start:
        # Every other byte of western text is zero in UTF-16.
        zeros = (start[::2].count(0), start[1::2].count(0))
        if max(zeros) > 0.3 * len(start) and min(zeros) == 0:
            raise _wrong_encoding(path, "UTF-16")
        raise DataError(f"{path}: byte {start.index(0)} is zero, so this is a binary file and not text")
    return 3 if start.startswith(codecs.BOM_UTF8) else 0


def _wrong_encoding(path: Path, encoding: str) -> DataError:
    return DataError(
        f"{path}: the file is {encoding}; llmkit reads UTF-8. Convert it: iconv -f {encoding} -t UTF-8 {path} > NEW"
    )


def not_utf8(path: Path, line: int, offset: int, raw: bytes, error: UnicodeDecodeError) -> DataError:
    """The error for text that is not UTF-8.

    Args:
        path: the file.
        line: its line, from 1, that `raw` begins.
        offset: position of `raw` in the file, in bytes.
        raw: the bytes that were decoded.
        error: what decoding them said.
    """
    line += raw.count(b"\n", 0, error.start)
    column = error.start - raw.rfind(b"\n", 0, error.start)
    return DataError(
        f"{path}:{line}:{column}: byte {offset + error.start} (0x{raw[error.start]:02x}) is not UTF-8; "
        f"if the file is Latin-1, convert it: iconv -f LATIN1 -t UTF-8 {path} > NEW"
    )


def read_text(path: Path) -> str:
    """The whole file, without a byte-order mark.

    Raises:
        DataError: it cannot be opened or is not UTF-8 text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    skip = text_start(path, raw[:4096])
    try:
        return raw[skip:].decode()
    except UnicodeDecodeError as error:
        raise not_utf8(path, 1, skip, raw[skip:], error) from None


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that the system does not open or read."""
    return DataError(f"{path}: cannot be read: {error.strerror or error}")
