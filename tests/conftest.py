"""What tests all over the tree share."""

import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from llmkit import plugins
from llmkit.cache import cache_directory

FakePackage = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tokenized rows of the tests stay out of the user's cache; models and compiled code are shared."""
    cache = tmp_path_factory.mktemp("cache")
    for group in ("models", "kernels"):
        shared = cache_directory() / group
        shared.mkdir(parents=True, exist_ok=True)
        (cache / group).symlink_to(shared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMKIT_CACHE", str(cache))
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of GPUs are skipped where there is none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA GPU")


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePackage]:
    """Installs packages as pip would: `fake_package("acme", {"engines": {"fast": "acme"}}, {"acme.py": "..."})`.

    They are there for this process and for those that it starts. Returns the directory that they are installed in.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    before = set(sys.modules)

    def add(
        name: str,
        entry_points: Mapping[str, Mapping[str, str]],
        files: Mapping[str, str] = {},
        *,
        version: str = "1.0",
        requires: Sequence[str] = (),
    ) -> Path:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        needed = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        groups = [
            f"[llmkit.{kind}]\n" + "".join(f"{plugin} = {target}\n" for plugin, target in found.items())
            for kind, found in entry_points.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(groups))
        for path, text in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(textwrap.dedent(text))
        plugins.rescan()
        return site

    yield add
    for module in set(sys.modules) - before:
        if str(site) in (getattr(sys.modules[module], "__file__", None) or ""):
            del sys.modules[module]
    plugins.rescan()
