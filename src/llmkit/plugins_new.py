"""Make a package with one working plugin, from `plugin_templates/<kind>` and `plugin_templates/common`."""

import re
from pathlib import Path

from llmkit import plugins
from llmkit.errors import PluginError
from llmkit.plugins_requirements import PACKAGE, installed_version

TEMPLATES = Path(__file__).parent / "plugin_templates"
NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
TARGETS = {"commands": "llmkit_example:app"}
USES = {
    "commands": "llmkit example_name --help",
    "engines": "llmkit train grpo --engine example_name ...",
    "datasets": "llmkit train sft --dataset example_name ...",
    "formatters": "llmkit train sft --set formatter.name=example_name ...",
    "stores": "llmkit train sft --dataset tokens --set dataset.path=FILE --set dataset.store=example_name ...",
    "adapters": "llmkit train sft --adapter example_name ...",
    "optimizers": "llmkit train sft --set optim.optimizer=example_name ...",
    "rewards": "llmkit train grpo --reward example_name ...",
    "workflows": "llmkit train grpo --workflow example_name ...",
    "trackers": "llmkit train sft --tracker example_name ...",
    "models": "llmkit train sft --model builtin:example_name ...",
    "presets": "llmkit train sft --preset example_name",
}


def create(kind: str, name: str, parent: Path) -> Path:
    """Write a new package.

    Args:
        kind: `rewards`, say.
        name: by which the plugin is chosen; the package is called `llmkit-<name>`.
        parent: directory in which the package's own directory is made.
    Returns: the package's directory.
    Raises:
        PluginError: the name cannot be a package's name, or the directory exists or cannot be made.
    """
    short = name.removeprefix("llmkit-")
    if not NAME.fullmatch(short):
        raise PluginError(
            f"'{name}' cannot name a plugin: use small letters, digits and single dashes, beginning with a letter"
        )
    package = parent / f"llmkit-{short.replace('_', '-')}"
    if package.exists():
        raise PluginError(f"{package}: there already; choose another name or --dir")
    words = _words(kind, short)
    try:
        for folder in (TEMPLATES / "common", TEMPLATES / kind):
            for template in sorted(folder.rglob("*")):
                if template.is_file() and "__pycache__" not in template.parts:
                    _write(template, package / _fill(template.relative_to(folder).as_posix(), words), words)
    except OSError as error:
        raise PluginError(f"{package}: cannot be written: {error.strerror}") from error
    return package


def _words(kind: str, name: str) -> dict[str, str]:
    """What stands in a template, and what takes its place; longer words first."""
    return {
        "EXAMPLE_TARGET": TARGETS.get(kind, "llmkit_example"),
        "EXAMPLE_USE": USES[kind],
        "EXAMPLE_KINDS": kind,
        "EXAMPLE_KIND": plugins.one(kind),
        "llmkit>=0": f"llmkit>={installed_version(PACKAGE)}",
        "llmkit_example": f"llmkit_{name.replace('-', '_')}",
        "llmkit-example": f"llmkit-{name.replace('_', '-')}",
        "example_name": name,
    }


def _fill(text: str, words: dict[str, str]) -> str:
    for word, replacement in words.items():
        text = text.replace(word, replacement)
    return text


def _write(template: Path, path: Path, words: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_fill(template.read_text(encoding="utf-8"), words), encoding="utf-8")
