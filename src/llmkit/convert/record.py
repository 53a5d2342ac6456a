"""What a conversion leaves beside its output: what went in, what was asked for, what was checked."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmkit.versions import package_versions

MANIFEST = "conversion.json"
"""Its name in a directory; beside a file it is the file's name and this."""
FORMAT = 1


@dataclass
class Conversion:
    """What was done.

    Attributes:
        command: `merge`, say.
        output: path of what was written.
        inputs: what was read: for each path `bytes` and `sha256` of its files.
        options: what was asked for, and what that came to.
        checks: what was looked at, and what was found.
        notes: what the user should know of the result.
    """

    command: str
    output: str
    inputs: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """All of it, with versions and the time, as JSON can hold it."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {"format": FORMAT, "created_at": now, **asdict(self), "versions": package_versions()}

    def write(self, path: Path, document: Mapping[str, Any]) -> None:
        """Write `document` to a file."""
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def describe_files(files: Iterable[Path], root: Path) -> dict[str, dict[str, Any]]:
    """Sizes and hashes, by the files' names relative to `root`."""
    return {
        file.relative_to(root).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for file in sorted(files)
    }


def describe_directory(path: Path) -> dict[str, dict[str, Any]]:
    """Sizes and hashes of the files of a model or adapter; what lies deeper is not part of it."""
    return describe_files((file for file in path.iterdir() if file.is_file()), path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
