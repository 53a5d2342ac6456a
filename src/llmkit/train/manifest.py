"""`llmkit.json` in a checkpoint: what it holds, and whether that is still what was written."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmkit.versions import package_versions

MANIFEST = "llmkit.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What the file says.

    Attributes:
        format: version of this layout.
        step: the last step that the checkpoint holds.
        saved_at: when it was written, ISO 8601 in UTC.
        config_hash: of the settings that the result depends on.
        config: the resolved configuration, secrets masked.
        versions: of Python and the packages that wrote it.
        files: `bytes` and `sha256` of every other file, by name relative to the checkpoint.
    """

    format: int
    step: int
    saved_at: str
    config_hash: str
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]


def write_manifest(path: Path, step: int, config_hash: str, config: Mapping[str, Any]) -> None:
    """Describe every file below `path` in `path/llmkit.json`."""
    names = sorted(entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file())
    files = {name: {"bytes": (path / name).stat().st_size, "sha256": checksum(path / name)} for name in names}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(FORMAT, step, now, config_hash, config, package_versions(), files)
    text = json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n"
    (path / MANIFEST).write_bytes(text.encode("utf-8", "backslashreplace"))


def read_manifest(path: Path) -> Manifest:
    """Read `path/llmkit.json`.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError, TypeError: it is damaged.
    """
    values = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise TypeError(f"{path / MANIFEST}: not an object")
    return Manifest(**values)


def find_fault(path: Path) -> str | None:
    """What is wrong with the checkpoint in `path`, in words; None when every file is as it was written."""
    if not path.is_dir():
        return "no such checkpoint"
    try:
        manifest = read_manifest(path)
        files = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest.files.items()}
    except FileNotFoundError:
        return f"has no {MANIFEST}, so it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"its {MANIFEST} is damaged, or of another version of llmkit"
    if manifest.format != FORMAT:
        return f"has format {manifest.format!r}, and this version of llmkit reads format {FORMAT}"
    if path.name != f"step-{manifest.step}":
        return f"its {MANIFEST} is that of step {manifest.step}"
    for name, (num_bytes, sha256) in files.items():
        if (fault := find_file_fault(path / name, num_bytes, sha256)) is not None:
            return f"{name} {fault}"
    return None


def find_file_fault(path: Path, num_bytes: int, sha256: str) -> str | None:
    """How a file differs from what the manifest says; None when it does not."""
    try:
        size = path.stat().st_size
        if size != num_bytes:
            return f"has {size} bytes and was written with {num_bytes}"
        return None if checksum(path) == sha256 else "is not what was written: its checksum differs"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def checksum(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
