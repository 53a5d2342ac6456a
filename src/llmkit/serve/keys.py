"""API keys: made once, kept as hashes, compared in constant time."""

import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmkit.config.serving import AuthConfig
from llmkit.errors import ConfigError

PREFIX = "sk-llmkit-"
SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Key:
    """One key, without the key.

    Attributes:
        id: what `revoke` takes, and what the access log shows.
        name: what it is for.
        sha256: hex digest of the key: it is random and long, so that a slow hash would add nothing.
        created: when, in ISO 8601.
    """

    id: str
    name: str
    sha256: str
    created: str


def default_keys_file() -> Path:
    """`$LLMKIT_KEYS`, else `keys.json` in the user's configuration directory."""
    if own := os.environ.get("LLMKIT_KEYS"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config").expanduser() / "llmkit" / "keys.json"


def digest(key: str) -> str:
    """The hash under which a key is kept."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> list[Key]:
    """The keys of a file.

    Raises:
        ConfigError: it cannot be read, or is not a file of keys.
    """
    try:
        return [Key(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["keys"]]
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file of API keys; make one with: llmkit serve keys new --keys-file {path}"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: the API keys cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: not a file of API keys as `llmkit serve keys new` makes them: {error}") from error


def new_key(path: Path, name: str) -> tuple[str, Key]:
    """Make a key and add its hash to a file.

    Returns: the key itself, which is kept nowhere, and its entry.
    """
    keys = read_keys(path) if path.exists() else []
    text = PREFIX + secrets.token_urlsafe(32)
    entry = Key(secrets.token_hex(4), name, digest(text), datetime.now(UTC).isoformat(timespec="seconds"))
    _write(path, [*keys, entry])
    return text, entry


def revoke_key(path: Path, key_id: str) -> Key:
    """Take a key out of a file; servers that read the file refuse it within a second.

    Raises:
        ConfigError: the file has no such key.
    """
    keys = read_keys(path)
    found = next((key for key in keys if key.id == key_id), None)
    if found is None:
        raise ConfigError(f"{path}: no key with the id '{key_id}'; it has: {', '.join(k.id for k in keys) or 'none'}")
    _write(path, [key for key in keys if key is not found])
    return found


class KeyRing:
    """The keys that a server takes: those of its settings, and those of a file, which may change."""

    def __init__(self, plain: Sequence[str] = (), path: Path | None = None) -> None:
        """Raises: ConfigError, when the file cannot be read."""
        self._fixed = {f"settings-{number}": digest(key) for number, key in enumerate(plain, start=1)}
        self._path = path
        self._from_file: dict[str, str] = {}
        self._stamp: tuple[int, int] | None = None
        self._next_look = 0.0
        if path is not None:
            self._from_file = _digests(read_keys(path))
            self._stamp = _stamp(path)

    @property
    def is_open(self) -> bool:
        """Whether everyone may ask: there never was a key."""
        return not self._fixed and self._path is None

    def identify(self, key: str) -> str | None:
        """The id of a key, None for one that is not known. Takes the same time for all."""
        self._look()
        wanted, found = digest(key), None
        for key_id, known in (*self._fixed.items(), *self._from_file.items()):
            if hmac.compare_digest(known, wanted):
                found = key_id
        return found

    def _look(self) -> None:
        """Read the file again when it has changed. One that cannot be read leaves the keys as they were."""
        now = time.monotonic()
        if self._path is None or now < self._next_look:
            return
        self._next_look = now + SECONDS_BETWEEN_LOOKS
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            self._from_file = _digests(read_keys(self._path))
        except (OSError, ConfigError):
            return
        self._stamp = stamp


def open_keys(auth: AuthConfig) -> KeyRing:
    """The keys of the settings and of the file.

    Raises:
        ConfigError: the file cannot be read, or a key is empty.
    """
    plain = [key.get_secret_value() for key in auth.keys]
    if not all(plain):
        raise ConfigError("auth.keys: a key is empty; is the environment variable set?")
    return KeyRing(plain, None if auth.keys_file is None else Path(auth.keys_file).expanduser())


def _digests(keys: Iterable[Key]) -> dict[str, str]:
    return {key.id: key.sha256 for key in keys}


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino


def _write(path: Path, keys: Sequence[Key]) -> None:
    """Replace the file at once; only its owner may read it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump({"keys": [asdict(key) for key in keys]}, file, indent=2)
            file.write("\n")
        os.replace(partial, path)
    except OSError as error:
        raise ConfigError(f"{path}: the API keys cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
