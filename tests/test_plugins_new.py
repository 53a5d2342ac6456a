import tomllib

import pytest

from llmkit import plugins
from llmkit.errors import PluginError
from llmkit.plugins_check import check_package
from llmkit.plugins_new import create


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_a_new_package_of_each_kind_passes_its_tests_and_ours(kind, tmp_path):
    assert check_package(create(kind, "first-try", tmp_path))


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_no_word_of_the_template_is_left(kind, tmp_path):
    package = create(kind, "first-try", tmp_path)
    for path in package.rglob("*"):
        text = str(path.relative_to(package)) + (path.read_text() if path.is_file() else "")
        assert "example_name" not in text
        assert "llmkit_example" not in text
        assert "llmkit-example" not in text
        assert "EXAMPLE_" not in text


def test_it_is_declared_for_pip_with_the_llmkit_that_made_it(tmp_path):
    project = tomllib.loads((create("rewards", "first_try", tmp_path) / "pyproject.toml").read_text())["project"]
    assert project["name"] == "llmkit-first-try"
    assert project["entry-points"] == {"llmkit.rewards": {"first_try": "llmkit_first_try"}}
    assert project["dependencies"] == ["llmkit>=0.1.0"]


def test_a_name_with_the_prefix_gets_no_second_one(tmp_path):
    assert create("rewards", "llmkit-politeness", tmp_path).name == "llmkit-politeness"


@pytest.mark.parametrize("name", ["", "Polite", "9lives", "a b", "../x", "a--b", "x-"])
def test_a_name_that_cannot_be_a_package_is_refused(name, tmp_path):
    with pytest.raises(PluginError, match="cannot name a plugin"):
        create("rewards", name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_written_over(tmp_path):
    package = create("rewards", "politeness", tmp_path)
    (package / "README.md").write_text("mine")
    with pytest.raises(PluginError, match="there already"):
        create("datasets", "politeness", tmp_path)
    assert (package / "README.md").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PluginError, match="cannot be written"):
        create("rewards", "politeness", tmp_path / "file")
