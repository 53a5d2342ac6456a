"""A small run schema with plugins of its own, and a folder of presets in place of the shipped ones."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from hypothesis import settings
from pydantic import Field

from llmkit import plugins
from llmkit.config.resolve import Resolved, resolve
from llmkit.config.section import Nonsemantic, PluginKind, PluginSection, Secret, Section, all_defaults
from llmkit.errors import PluginError

settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


class Brush(Section):
    """How to paint."""

    width: float = Field(1.0, gt=0, le=10)
    """Width in millimetres."""
    strokes: int = Field(3, ge=1)
    """How many."""
    mix: tuple[float, float] = (0.5, 0.5)
    """Shares of two colours."""
    style: Literal["dry", "wet"] = "dry"
    """How much water."""


class Oil(Section):
    """Oil paint."""

    thinner: float = Field(0.1, ge=0)
    """Share of thinner."""
    tags: list[str] = Field(default_factory=list)
    """Names of pigments."""


class Water(Section):
    """Watercolour."""

    sheets: int = 2
    """Sheets of paper."""
    wash: Annotated[PluginSection, PluginKind("paints", "oil")]
    """What to wash with; a plugin inside a plugin."""


class Gallery(Section):
    """Shows pictures."""

    token: Secret | None = None
    """Password of the gallery."""
    url: str = "https://example.org"
    """Where it is."""


class Painting(Section):
    """One painting."""

    seed: int = 0
    """Fixes the picture."""
    title: str | None = None
    """Text under the picture."""
    output_dir: Annotated[str | None, Nonsemantic] = None
    """Where to put it."""
    framed: bool = False
    """Whether it has a frame."""
    brush: Brush = all_defaults(Brush)
    paint: Annotated[PluginSection, PluginKind("paints", "oil")]
    """What to paint with."""
    canvas: Annotated[PluginSection, PluginKind("canvases")]
    """What to paint on."""
    second: Annotated[PluginSection | None, PluginKind("canvases")] = None
    """Another canvas."""
    galleries: Annotated[tuple[PluginSection, ...], PluginKind("galleries"), Nonsemantic] = ()
    """Where it hangs."""
    notes: dict[str, str | int | dict[str, str]] = Field(default_factory=dict)
    """Anything."""


class Linen(Section):
    """Linen."""

    threads: int = 20
    """Threads per centimetre."""
    label: str = ""
    """What is on the back."""


INSTALLED = {
    "paints": {"oil": Oil, "water": Water},
    "canvases": {"linen": Linen, "paper": Section},
    "galleries": {"louvre": Gallery, "tate": Gallery},
}


@pytest.fixture(autouse=True)
def add_plugin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, type[Section]], None]:
    """Installs the plugins of the little schema, and further ones by kind, name and `Config`."""
    real_load, real_names = plugins.load, plugins.names
    installed = {kind: dict(named) for kind, named in INSTALLED.items()}

    def load(kind: str, name: str) -> Any:
        if kind not in installed:
            return real_load(kind, name)
        if name not in installed[kind]:
            raise PluginError(f"No {kind} named '{name}'. Installed: {', '.join(installed[kind])}.")
        return SimpleNamespace(Config=installed[kind][name], build=lambda config: config)

    def add(kind: str, name: str, config: type[Section]) -> None:
        installed[kind][name] = config

    monkeypatch.setattr(plugins, "load", load)
    monkeypatch.setattr(
        plugins, "names", lambda kind: sorted(installed[kind]) if kind in installed else real_names(kind)
    )
    return add


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Writes a preset: `presets("paint/small", "seed: 1")`; no other presets are there."""
    root = tmp_path / "presets"
    root.mkdir()
    monkeypatch.setattr("llmkit.config.presets.preset_roots", lambda: [("llmkit", root)])

    def write(name: str, text: str) -> Path:
        path = root / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Writes a file in the working directory, so that messages show its bare name."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        Path(name).write_text(text)
        return Path(name)

    return write


@pytest.fixture
def paint() -> Callable[..., Resolved[Painting]]:
    """Resolves a painting on linen, in an empty environment; arguments are those of `resolve`."""

    def run(*overrides: str, canvas: str | None = "linen", environ: dict[str, str] | None = None, **given: Any) -> Any:
        chosen = [f"canvas={canvas}"] if canvas else []
        return resolve(Painting, command="paint", overrides=[*chosen, *overrides], environ=environ or {}, **given)

    return run
