"""Find presets: YAML files by short names, from this package, from plugins, or from a path."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmkit.config.yaml_files import leading_comment
from llmkit.errors import ConfigError

OWN = "llmkit"
ALGORITHMS = "algorithms"
"""Folder of a command's presets that hold an algorithm's settings and no more: something to lay over a whole run."""
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Preset:
    """A configuration with a name.

    Attributes:
        name: full name, command first: `train/grpo/gsm8k`.
        path: the file.
        package: who provides it: `llmkit`, or the package of a plugin.
    """

    name: str
    path: Path
    package: str

    @property
    def command(self) -> str:
        """The command that it configures: `train/grpo`."""
        return self.name.rpartition("/")[0].removesuffix(f"/{ALGORITHMS}")

    @property
    def is_algorithm(self) -> bool:
        """Whether it is part of a run: an algorithm, without model and data."""
        return self.path.parent.name == ALGORITHMS

    @property
    def short_name(self) -> str:
        """Its name within the command's folder: `gsm8k`."""
        return self.name.rpartition("/")[2]

    @property
    def description(self) -> str:
        """The comment that its file begins with."""
        return leading_comment(self.path.read_text(encoding="utf-8", errors="replace"))

    @property
    def summary(self) -> str:
        """First line of the description."""
        return self.description.partition("\n")[0]


def find_preset(command: str, name: str, beside: Path | None = None) -> Path:
    """The file of a preset.

    Looked for in this order: the command's folder (`gsm8k` for `train/grpo` is `train/grpo/gsm8k`), full names,
    plugins' presets (also as `package:name`), a path.

    Args:
        command: the command that asks, such as `train/grpo`; empty when none does.
        name: what the user typed.
        beside: directory from which paths are looked up first: that of the file that says `extends`.
    Raises:
        ConfigError: there is no such preset; with suggestions.
    """
    package, colon, bare = name.partition(":")
    if not colon:
        package, bare = "", name
    for owner, root in preset_roots():
        if not package or package == owner:
            for full in (f"{command}/{bare}", bare) if command else (bare,):
                if (found := _inside(root, full)) is not None:
                    return found
    for path in _as_paths(name, beside):
        if path.is_file():
            return path
    raise ConfigError(_unknown(command, name))


def list_presets(command: str = "") -> list[Preset]:
    """Every preset by full name, or those of one command (or group of commands: `train`); own ones come first."""
    found: dict[tuple[str, str], Preset] = {}
    for package, root in preset_roots():
        for path in sorted(root.rglob("*")):
            if path.suffix in SUFFIXES:
                name = path.relative_to(root).with_suffix("").as_posix()
                if not command or name.startswith(f"{command}/"):
                    found.setdefault((package, name), Preset(name, path, package))
    return list(found.values())


def preset_roots() -> list[tuple[str, Path]]:
    """Folders that hold presets, with the package that each belongs to, in the order in which they are searched."""
    from llmkit import plugins

    return [(OWN, root) for root in _own_roots() if root.is_dir()] + plugins.preset_dirs()


def _own_roots() -> Iterator[Path]:
    """The checkout's folder first: an editable install leaves a copy in the package that goes stale."""
    package = Path(__file__).resolve().parents[1]
    if (package.parents[1] / "pyproject.toml").is_file() and package.parent.name == "src":
        yield package.parents[1] / "presets"
    yield package / "presets"


def _inside(root: Path, name: str) -> Path | None:
    """The file of a name below a root, None when there is none or the name leads out of the root."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    for suffix in ("", *SUFFIXES):
        path = root / f"{name}{suffix}"
        if path.suffix in SUFFIXES and path.is_file():
            return path
    return None


def _as_paths(name: str, beside: Path | None) -> Iterator[Path]:
    path = Path(name).expanduser()
    if beside is not None:
        yield beside / path
    yield path


def _unknown(command: str, name: str) -> str:
    presets = list_presets()
    known = [preset.name for preset in presets]
    short = [full.removeprefix(f"{command}/") for full in known if command and full.startswith(f"{command}/")]
    message = f"no preset or file named '{name}'"
    elsewhere = [full for full in known if full.rpartition("/")[2] == name]
    close = difflib.get_close_matches(name, short + known, n=1) or elsewhere
    if close:
        message += f". Did you mean '{close[0]}'?"
    elif short:
        message += f"; for {command} there are: {', '.join(sorted(short)[:12])}."
    else:
        message += "."
    return f"{message} All of them: llmkit presets list{f' {command}' if command else ''}"
