from pathlib import Path

import llmkit_example
import pytest

from llmkit.testing.model import ModelContract


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path))


class TestModel(ModelContract):
    name = "example_name"


def test_each_size_has_a_directory_of_its_own():
    small, large = (llmkit_example.build(llmkit_example.Config(hidden_size=size)) for size in (32, 64))
    assert Path(small).is_dir()
    assert small != large
