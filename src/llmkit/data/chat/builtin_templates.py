"""Chat templates that come with llmkit, by name."""

from functools import cache
from importlib.resources import files

SUFFIX = ".jinja"


@cache
def template_names() -> tuple[str, ...]:
    """The names of all of them, in alphabetical order."""
    found = (entry.name for entry in files("llmkit.data.chat").joinpath("templates").iterdir())
    return tuple(sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX)))


def read_template(name: str) -> str:
    """The Jinja text of one of `template_names`."""
    return files("llmkit.data.chat").joinpath("templates", name + SUFFIX).read_text(encoding="utf-8")
