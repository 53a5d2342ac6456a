"""Files of `torch.save`, written a part of a tensor at a time.

torch makes the file with room for the values; they then go to their places, and their checksums into the zip archive
that the file is.
"""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from llmkit.convert.tensor_files import bytes_of
from llmkit.convert.tensor_source import TensorSource, parts
from llmkit.data.preparing.progress import with_progress

LOCAL_HEADER, CENTRAL_HEADER = struct.Struct("<26xHH"), struct.Struct("<16xI8xHHH12x")
"""Of an archive's entry: lengths of name and more, before its data; checksum and three lengths, in the directory."""
CHECKSUM_AT = 16
DESCRIPTOR = b"PK\x07\x08"


def write_torch(source: TensorSource, out: Path) -> None:
    """Write what `torch.save` writes of a mapping from names to tensors."""
    with FakeTensorMode():
        state = {name: torch.empty(entry.shape, dtype=entry.dtype) for name, entry in source.tensors.items()}
        with torch.serialization.skip_data(materialize_fake_tensors=True):
            torch.save(state, out)
        placed = torch.load(out, weights_only=True)
    checksums: dict[int, int] = {}
    with out.open("r+b") as file:
        for name in with_progress(source.tensors, len(source.tensors), "Writing tensors"):
            if not source.tensors[name].num_bytes:
                continue
            start = placed[name].untyped_storage()._checkpoint_offset
            file.seek(start)
            checksums[start] = 0
            for part in parts(source, name):
                content = bytes_of(part)
                checksums[start] = zlib.crc32(content, checksums[start])
                file.write(content)
        _write_checksums(file, checksums)


def _write_checksums(file: BinaryIO, checksums: dict[int, int]) -> None:
    """Put the checksums of entries, by where their data begins, after the data and into the archive's directory."""
    with zipfile.ZipFile(file) as archive:
        entries, directory = archive.infolist(), archive.start_dir
    for entry in entries:
        file.seek(directory)
        _, *lengths = CENTRAL_HEADER.unpack(file.read(CENTRAL_HEADER.size))
        file.seek(entry.header_offset)
        start = entry.header_offset + LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size)))
        if start in checksums:
            checksum = struct.pack("<I", checksums[start])
            file.seek(directory + CHECKSUM_AT)
            file.write(checksum)
            file.seek(start + entry.file_size)
            if file.read(len(DESCRIPTOR)) == DESCRIPTOR:
                file.write(checksum)
        directory += CENTRAL_HEADER.size + sum(lengths)
