"""Find a plugin by kind and name: one door for what ships with llmkit and for what `pip install` adds.

A plugin is an entry point in the group `llmkit.<kind>`. Its target is a light module (or object) with a docstring, a
`Config` section and a `build` function; a command's target is a `typer.Typer`, and a preset package is a folder of YAML
files. Looking around reads package metadata only; a plugin is imported when it is loaded, and one that cannot be
imported harms nobody else.
"""

import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

from llmkit.errors import PluginError
from llmkit.plugins_requirements import PACKAGE, conflict_with_llmkit, installing, unmet, unmet_of_extra
from llmkit.plugins_source import docstring_line, folder

Kind = Literal[
    "commands",
    "engines",
    "datasets",
    "formatters",
    "stores",
    "adapters",
    "optimizers",
    "rewards",
    "workflows",
    "trackers",
    "models",
    "presets",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

State = Literal["ok", "missing requirement", "incompatible", "broken"]


@dataclass(frozen=True)
class Plugin:
    """One entry point.

    Attributes:
        kind: what comes after `llmkit.` in its group.
        name: what users type; `package:name` when two packages have the name.
        entry_point: where it is defined.
    """

    kind: str
    name: str
    entry_point: metadata.EntryPoint

    @property
    def target(self) -> str:
        """`module` or `module:attribute`."""
        return self.entry_point.value

    @property
    def module(self) -> str:
        """Dotted name of the module in `target`."""
        return self.target.partition(":")[0].partition("[")[0].strip()

    @property
    def attribute(self) -> str | None:
        """What `target` names in the module, if anything."""
        return self.target.partition(":")[2].partition("[")[0].strip() or None

    @property
    def distribution(self) -> metadata.Distribution:
        """The installed package that declares it."""
        distribution = self.entry_point.dist
        assert distribution is not None, "importlib.metadata sets it on every entry point that it finds"
        return distribution

    @property
    def package(self) -> str:
        """Name of that package, as pip shows it."""
        return self.distribution.name

    @property
    def version(self) -> str:
        """Version of that package."""
        return self.distribution.version

    @property
    def qualified_name(self) -> str:
        """`package:name`, which is clear even when two packages have the name."""
        return f"{self.package}:{self.entry_point.name}"

    def __str__(self) -> str:
        return f"{one(self.kind)} '{self.name}' of {self.package} {self.version}"


@dataclass(frozen=True)
class Report:
    """What is known about a plugin after trying it.

    Attributes:
        state: `ok`; `missing requirement` it needs a package that is not here; `incompatible` it wants another llmkit;
            `broken` it cannot be imported or is not what its kind promises.
        detail: what to do about it; empty when `ok`.
        error: what its import raised, if it raised.
    """

    plugin: Plugin
    summary: str
    state: State
    detail: str = ""
    error: BaseException | None = None


def names(kind: str) -> list[str]:
    """The names that `load(kind, name)` accepts, sorted."""
    return sorted(_index(kind))


def find(kind: str, name: str) -> Plugin:
    """The entry point of one plugin, without importing it.

    Raises:
        PluginError: nothing has this name, or two packages have it.
    """
    found = _index(kind)
    if name in found:
        return found[name]
    rivals = sorted(full for full, plugin in found.items() if plugin.entry_point.name == name)
    if rivals:
        packages = " and ".join(found[rival].package for rival in rivals)
        raise PluginError(f"Two packages have the {one(kind)} '{name}': {packages}. Choose one: {_listed(rivals)}.")
    for plugin in found.values():
        if plugin.qualified_name == name:
            return plugin
    for needed in unmet_of_extra(metadata.distribution(PACKAGE), name):
        if needed.startswith(f"{PACKAGE}-"):  # a package of ours with plugins of this name
            raise PluginError(f"The {one(kind)} '{name}' needs {needed}: {installing(name)}")
    raise PluginError(f"No {one(kind)} named '{name}'.{suggestion(name, found)} Installed: {_listed(found)}.")


def load(kind: str, name: str) -> Any:
    """Import a plugin.

    Returns: a module or object with `Config` and `build`; a command's `typer.Typer`; the folder of a preset package.
    Raises:
        PluginError: it is not installed, wants another llmkit, cannot be imported, or is not what its kind promises.
    """
    plugin = find(kind, name)
    problem = conflict_with_llmkit(plugin.distribution)
    if problem:
        raise PluginError(f"The {plugin} {problem}")
    if kind == "presets":
        return _presets_folder(plugin)
    try:
        loaded = plugin.entry_point.load()
    except (Exception, SystemExit) as error:  # a third party's import may raise anything
        raise PluginError(f"The {plugin} cannot be imported: {_import_problem(plugin, error)}") from error
    _check_shape(plugin, loaded)
    return loaded


def summary(kind: str, name: str) -> str:
    """First line of a plugin's docstring, read from its source without importing it; empty when there is none."""
    plugin = find(kind, name)
    return docstring_line(plugin.module, plugin.attribute)


def inspect(kind: str, name: str) -> Report:
    """Try a plugin and say what became of it; raises only if no plugin has the name."""
    plugin = find(kind, name)
    line = docstring_line(plugin.module, plugin.attribute)
    problem = conflict_with_llmkit(plugin.distribution)
    if problem:
        return Report(plugin, line, "incompatible", problem)
    missing = unmet(plugin.distribution)
    try:
        loaded = load(kind, name)
    except PluginError as error:
        state: State = "missing requirement" if missing or _missing_module(plugin, error.__cause__) else "broken"
        return Report(plugin, line, state, _without_subject(plugin, str(error)), error.__cause__)
    extra = getattr(loaded, "EXTRA", None)
    if extra and unmet_of_extra(plugin.distribution, extra):
        return Report(plugin, line, "missing requirement", f"pip install '{plugin.package}[{extra}]'")
    if missing:
        return Report(plugin, line, "missing requirement", _pip(missing))
    return Report(plugin, line, "ok")


def preset_dirs() -> list[tuple[str, Path]]:
    """Package name and folder of every installed preset package whose folder exists."""
    found = ((plugin.package, folder(plugin.module)) for plugin in _index("presets").values())
    return [(package, path) for package, path in found if path is not None]


def is_installed(kind: str, name: str) -> bool:
    """Whether `find(kind, name)` finds something."""
    return name in _index(kind) or any(plugin.qualified_name == name for plugin in _index(kind).values())


def kind_named(word: str) -> str:
    """`engine` or `engines` as the kind `engines`.

    Raises:
        PluginError: there is no such kind.
    """
    if word in KINDS:
        return word
    if f"{word}s" in KINDS:
        return f"{word}s"
    raise PluginError(f"No kind of plugin named '{word}'.{suggestion(word, KINDS)} Kinds: {_listed(KINDS)}.")


def one(kind: str) -> str:
    """`engine` for the kind `engines`, for messages."""
    return "preset package" if kind == "presets" else kind.removesuffix("s")


def suggestion(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest known name; empty when none is close."""
    close = get_close_matches(name, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def rescan() -> None:
    """Forget what was found, after a package was installed or removed in this process."""
    _index.cache_clear()
    docstring_line.cache_clear()


@cache
def _index(kind: str) -> dict[str, Plugin]:
    """Plugins of a kind by the name that chooses them."""
    assert kind in KINDS, f"{kind} is none of {KINDS}"
    same_name: dict[str, list[Plugin]] = {}
    for entry_point in metadata.entry_points(group=f"llmkit.{kind}"):
        same_name.setdefault(entry_point.name, []).append(Plugin(kind, entry_point.name, entry_point))
    found: dict[str, Plugin] = {}
    for name, plugins in same_name.items():
        if len(plugins) == 1:
            found[name] = plugins[0]
        else:
            found |= {one.qualified_name: Plugin(kind, one.qualified_name, one.entry_point) for one in plugins}
    return found


def _presets_folder(plugin: Plugin) -> Path:
    path = folder(plugin.module)
    if path is None:
        raise PluginError(f"The {plugin} has no folder: the package '{plugin.module}' is not there")
    if next(path.rglob("*.yaml"), None) is None:
        raise PluginError(f"The {plugin} holds no .yaml file: {path}")
    return path


def _check_shape(plugin: Plugin, loaded: Any) -> None:
    if plugin.kind == "commands":
        from typer import Typer

        if not isinstance(loaded, Typer):
            kind = type(loaded)
            raise PluginError(
                f"The {plugin} is {kind.__module__}.{kind.__qualname__}; a command is a typer.Typer, "
                f"named as 'module:app' ({plugin.target} in the package's entry points)"
            )
        return
    missing = [part for part in ("Config", "build") if not callable(getattr(loaded, part, None))]
    if missing:
        raise PluginError(f"The {plugin} has no {' and no '.join(missing)} ({plugin.target})")


def _import_problem(plugin: Plugin, error: BaseException) -> str:
    module = _missing_module(plugin, error)
    if module:
        return f"it needs '{module}', which is not installed: {_pip(unmet(plugin.distribution) or [module])}"
    last = next(reversed(traceback.extract_tb(error.__traceback__)), None)
    place = f" ({last.filename}:{last.lineno})" if last and not last.filename.startswith("<") else ""
    return f"{type(error).__name__}: {error}{place}"


def _missing_module(plugin: Plugin, error: BaseException | None) -> str | None:
    """The other package whose absence stopped the import, if that is what happened."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    top = error.name.partition(".")[0]
    return None if top == plugin.module.partition(".")[0] else top


def _without_subject(plugin: Plugin, message: str) -> str:
    return message.removeprefix(f"The {plugin} ")


def _pip(requirements: Iterable[str]) -> str:
    return "pip install " + " ".join(f"'{requirement}'" for requirement in requirements)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"
