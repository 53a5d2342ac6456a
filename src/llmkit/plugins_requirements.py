"""What installed packages ask for and what of it is here, from their metadata."""

import json
import shlex
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGE = "llmkit"


def installed_version(package: str) -> str | None:
    """Version of an installed package; None when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def conflict_with_llmkit(distribution: metadata.Distribution) -> str | None:
    """Why a package does not go with this llmkit; None when it does or does not say."""
    if distribution.name == PACKAGE:
        return None
    here = installed_version(PACKAGE)
    for requirement in _requirements(distribution):
        if requirement.name.lower() == PACKAGE and here and not requirement.specifier.contains(here, prereleases=True):
            return f"wants llmkit{requirement.specifier}, and this is llmkit {here}: pip install -U {distribution.name}"
    return None


def unmet(distribution: metadata.Distribution) -> list[str]:
    """What a package always needs and does not find, as pip takes it."""
    return [_written(needed) for needed in _requirements(distribution) if _applies(needed, "") and not _met(needed)]


def unmet_of_extra(distribution: metadata.Distribution, extra: str) -> list[str]:
    """What one extra of a package adds and is not here, as pip takes it."""
    return [
        _written(needed)
        for needed in _requirements(distribution)
        if _applies(needed, extra) and not _applies(needed, "") and not _met(needed)
    ]


def extras(distribution: metadata.Distribution) -> list[str]:
    """The extras that a package offers."""
    return distribution.metadata.get_all("Provides-Extra") or []


def installing(extra: str) -> str:
    """What to type for an extra of llmkit. A checkout has its own plugins, and no index need have them."""
    from packaging.requirements import Requirement

    checkout = _checkout()
    for needed in unmet_of_extra(metadata.distribution(PACKAGE), extra):
        if checkout and (checkout / "plugins" / Requirement(needed).name).is_dir():
            return f"pip install {shlex.quote(str(checkout / 'plugins' / Requirement(needed).name))}"
    return f"pip install '{PACKAGE}[{extra}]'"


def _checkout() -> Path | None:
    """The directory that llmkit was installed from; None when it came as a file or from an index."""
    origin = json.loads(metadata.distribution(PACKAGE).read_text("direct_url.json") or "{}")
    return Path(url2pathname(urlsplit(origin["url"]).path)) if "dir_info" in origin else None


def _requirements(distribution: metadata.Distribution) -> "Iterator[Requirement]":
    from packaging.requirements import InvalidRequirement, Requirement

    for text in distribution.requires or []:
        try:
            yield Requirement(text)
        except InvalidRequirement:
            continue  # written by a tool older than the standard; pip says so when the package is installed


def _written(requirement: "Requirement") -> str:
    """As a user types it for pip, without its marker."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _applies(requirement: "Requirement", extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _met(requirement: "Requirement") -> bool:
    version = installed_version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)
