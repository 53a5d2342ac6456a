import json
import re
import sys
from importlib import metadata

import pytest

from llmkit import plugins, plugins_requirements
from llmkit.errors import PluginError

GOOD = '''
    """Answers at once."""
    class Config: ...
    def build(config, context): return "built"
'''


def test_built_ins_are_found_like_any_plugin():
    assert {"echo", "native"} <= set(plugins.names("engines"))
    assert plugins.find("engines", "echo").package == "llmkit"


def test_an_installed_package_is_found_and_loaded(fake_package):
    fake_package("acme", {"engines": {"fast": "acme_fast"}}, {"acme_fast.py": GOOD})
    assert "fast" in plugins.names("engines")
    assert plugins.load("engines", "fast").build(None, None) == "built"
    assert plugins.inspect("engines", "fast").state == "ok"


def test_an_object_in_a_module_can_be_a_plugin(fake_package):
    source = """
        class Fast:
            '''An object.'''
            Config = object
            def build(self): return "object"
        fast = Fast()
    """
    fake_package("acme", {"engines": {"fast": "acme_fast:fast"}}, {"acme_fast.py": source})
    assert plugins.load("engines", "fast").build() == "object"


def test_an_unknown_name_suggests_and_lists_what_is_installed():
    with pytest.raises(PluginError, match=r"No engine named 'natve'\. Did you mean 'native'\? Installed: .*native"):
        plugins.load("engines", "natve")


def test_a_kind_may_be_said_in_singular_or_plural():
    assert plugins.kind_named("engine") == plugins.kind_named("engines") == "engines"
    with pytest.raises(PluginError, match=r"No kind of plugin named 'engin'\. Did you mean 'engines'\?"):
        plugins.kind_named("engin")


class TestSummary:
    def test_of_a_module_is_its_first_docstring_line_and_imports_nothing(self, fake_package):
        source = '"""Never imported.\n\nMore."""\nraise RuntimeError("imported")\n'
        fake_package("acme", {"rewards": {"kind": "acme_kind"}}, {"acme_kind.py": source})
        assert plugins.summary("rewards", "kind") == "Never imported."
        assert "acme_kind" not in sys.modules

    def test_of_a_module_in_a_package_does_not_import_the_package(self, fake_package):
        files = {
            "acme/__init__.py": 'raise RuntimeError("imported")',
            "acme/kind.py": '"""A module."""',
            "acme/deep/kind.py": '"""In a folder without __init__."""',
            "acme/sub/__init__.py": '"""A package."""',
        }
        targets = {"one": "acme.kind", "two": "acme.deep.kind", "three": "acme.sub"}
        fake_package("acme", {"rewards": targets}, files)
        assert plugins.summary("rewards", "one") == "A module."
        assert plugins.summary("rewards", "two") == "In a folder without __init__."
        assert plugins.summary("rewards", "three") == "A package."
        assert "acme" not in sys.modules

    def test_of_a_function_or_class_is_its_own(self, fake_package):
        source = """
            '''The module.'''
            class One:
                '''The class.'''
            async def two():
                '''The function.'''
            three = 3
        """
        fake_package("acme", {"rewards": {f"r{n}": f"acme:{n}" for n in ("One", "two", "three")}}, {"acme.py": source})
        assert [plugins.summary("rewards", f"r{n}") for n in ("One", "two", "three")] == [
            "The class.",
            "The function.",
            "The module.",
        ]

    def test_may_hold_a_line_that_looks_like_an_import(self, fake_package):
        source = "'''Sums.\n\nimport nothing\n'''\nimport json\n"
        fake_package("acme", {"rewards": {"kind": "acme_kind"}}, {"acme_kind.py": source})
        assert plugins.summary("rewards", "kind") == "Sums."

    @pytest.mark.parametrize("source", ["x = 1\n", "def broken(:\n", "\0"])
    def test_is_empty_where_there_is_none_to_read(self, fake_package, source):
        fake_package("acme", {"rewards": {"kind": "acme_kind", "gone": "acme_gone"}}, {"acme_kind.py": source})
        assert plugins.summary("rewards", "kind") == plugins.summary("rewards", "gone") == ""


class TestBroken:
    def test_its_error_is_kept_with_its_place_and_harms_nobody_else(self, fake_package):
        source = '"""Breaks."""\nvalue = 1\nvalue.no_such_attribute\n'
        fake_package("acme", {"engines": {"bad": "acme_bad"}}, {"acme_bad.py": source})
        report = plugins.inspect("engines", "bad")
        assert report.state == "broken"
        assert "AttributeError" in report.detail
        assert "acme_bad.py:3" in report.detail
        assert isinstance(report.error, AttributeError)
        with pytest.raises(PluginError, match=r"The engine 'bad' of acme 1\.0 cannot be imported: AttributeError"):
            plugins.load("engines", "bad")
        assert plugins.inspect("engines", "echo").state == "ok"

    def test_one_that_leaves_the_program_on_import_does_not(self, fake_package):
        fake_package("acme", {"engines": {"bad": "acme_bad"}}, {"acme_bad.py": "raise SystemExit(3)"})
        with pytest.raises(PluginError, match="SystemExit"):
            plugins.load("engines", "bad")

    def test_one_without_its_parts_is_told_which(self, fake_package):
        fake_package("acme", {"engines": {"bad": "acme_bad"}}, {"acme_bad.py": "class Config: ..."})
        with pytest.raises(PluginError, match=r"The engine 'bad' of acme 1\.0 has no build \(acme_bad\)"):
            plugins.load("engines", "bad")

    def test_a_target_that_is_no_module_path(self, fake_package):
        fake_package("acme", {"engines": {"bad": "not a module!"}})
        assert plugins.summary("engines", "bad") == ""
        assert plugins.inspect("engines", "bad").state == "broken"

    def test_a_command_that_is_not_a_typer(self, fake_package):
        fake_package("acme", {"commands": {"bad": "acme_bad:app"}}, {"acme_bad.py": "app = dict()"})
        with pytest.raises(PluginError, match=r"is builtins\.dict; a command is a typer\.Typer"):
            plugins.load("commands", "bad")


class TestMissingRequirement:
    def test_a_declared_one_is_named_as_the_package_asks_for_it(self, fake_package):
        files = {"acme_fast.py": "import surely_not_installed"}
        requires = ["surely-not-installed[gpu]>=2; python_version>'3'"]
        fake_package("acme", {"engines": {"fast": "acme_fast"}}, files, requires=requires)
        report = plugins.inspect("engines", "fast")
        assert report.state == "missing requirement"
        assert "pip install 'surely-not-installed[gpu]>=2'" in report.detail

    def test_one_that_only_shows_on_import(self, fake_package):
        fake_package("acme", {"engines": {"fast": "acme_fast"}}, {"acme_fast.py": "import surely_not_installed.part"})
        report = plugins.inspect("engines", "fast")
        assert report.state == "missing requirement"
        assert report.detail.endswith("not installed: pip install 'surely_not_installed'")

    def test_a_version_that_is_too_old(self, fake_package):
        fake_package("acme", {"engines": {"fast": "acme_fast"}}, {"acme_fast.py": GOOD}, requires=["pytest>=999"])
        assert plugins.inspect("engines", "fast").detail == "pip install 'pytest>=999'"

    def test_an_extra_that_the_plugin_names(self, fake_package):
        source = GOOD + '    EXTRA = "gpu"\n'
        requires = ["surely-not-installed; extra == 'gpu'"]
        fake_package("acme", {"engines": {"fast": "acme_fast"}}, {"acme_fast.py": source}, requires=requires)
        report = plugins.inspect("engines", "fast")
        assert (report.state, report.detail) == ("missing requirement", "pip install 'acme[gpu]'")

    def test_extras_that_nobody_asked_for_do_not_count(self, fake_package):
        requires = ["surely-not-installed; extra == 'gpu'"]
        fake_package("acme", {"engines": {"fast": "acme_fast"}}, {"acme_fast.py": GOOD}, requires=requires)
        assert plugins.inspect("engines", "fast").state == "ok"


def test_a_plugin_for_another_llmkit_is_incompatible_and_not_imported(fake_package):
    files = {"acme_fast.py": 'raise RuntimeError("imported")'}
    fake_package("acme", {"engines": {"fast": "acme_fast"}}, files, requires=["llmkit>=99"])
    report = plugins.inspect("engines", "fast")
    assert report.state == "incompatible"
    assert "wants llmkit>=99" in report.detail
    with pytest.raises(PluginError, match=r"wants llmkit>=99, and this is llmkit 0.* pip install -U acme"):
        plugins.load("engines", "fast")


class TestTwoPackagesWithOneName:
    @pytest.fixture(autouse=True)
    def _two(self, fake_package):
        fake_package("acme", {"engines": {"fast": "acme_fast"}}, {"acme_fast.py": GOOD})
        fake_package("bolt", {"engines": {"fast": "bolt_fast"}}, {"bolt_fast.py": GOOD.replace("built", "bolt's")})

    def test_the_name_alone_is_an_error_that_names_both(self):
        with pytest.raises(PluginError, match=r"the engine 'fast': acme and bolt\. Choose one: acme:fast, bolt:fast"):
            plugins.load("engines", "fast")

    def test_the_package_chooses(self):
        assert plugins.load("engines", "acme:fast").build(None, None) == "built"
        assert plugins.load("engines", "bolt:fast").build(None, None) == "bolt's"

    def test_every_listed_name_can_be_loaded(self):
        assert "fast" not in plugins.names("engines")
        assert {"acme:fast", "bolt:fast"} <= set(plugins.names("engines"))


def test_a_name_with_its_package_works_without_rivals_too():
    assert plugins.load("engines", "llmkit:echo") is plugins.load("engines", "echo")


class TestPresets:
    def test_the_folder_of_a_package_is_found_without_importing_it(self, fake_package):
        files = {"acme_presets/__init__.py": "1 / 0", "acme_presets/train/sft/tiny.yaml": "seed: 3\n"}
        site = fake_package("acme", {"presets": {"acme": "acme_presets"}}, files)
        assert ("acme", site / "acme_presets") in plugins.preset_dirs()
        assert plugins.load("presets", "acme") == site / "acme_presets"

    def test_a_package_that_is_not_there_is_broken(self, fake_package):
        fake_package("acme", {"presets": {"acme": "acme_presets"}})
        assert "acme" not in dict(plugins.preset_dirs())
        assert plugins.inspect("presets", "acme").state == "broken"

    def test_a_package_without_presets_is_broken(self, fake_package):
        fake_package("acme", {"presets": {"acme": "acme_presets"}}, {"acme_presets/__init__.py": ""})
        assert "holds no .yaml file" in plugins.inspect("presets", "acme").detail


class LLMKit:
    """What the package index or pip says of llmkit."""

    def __init__(self, origin: dict[str, object] | None) -> None:
        self.origin = origin
        self.requires = ["llmkit-vllm>=0.1; extra == 'vllm'"]

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return json.dumps(self.origin) if self.origin else None


@pytest.fixture
def without_vllm(monkeypatch):
    """The plugin llmkit-vllm is not installed, and llmkit came from `origin`."""

    def install(origin):
        monkeypatch.setattr(plugins, "_index", lambda kind: {})
        monkeypatch.setattr(metadata, "distribution", lambda name: LLMKit(origin))
        monkeypatch.setattr(plugins_requirements, "installed_version", lambda name: None)

    return install


def test_a_plugin_of_ours_in_a_package_of_its_own_says_how_to_get_it(without_vllm):
    without_vllm(None)
    with pytest.raises(PluginError, match=r"The engine 'vllm' needs llmkit-vllm>=0\.1: pip install 'llmkit\[vllm\]'"):
        plugins.find("engines", "vllm")


def test_a_checkout_installs_its_own_plugins(without_vllm, tmp_path):
    (tmp_path / "plugins/llmkit-vllm").mkdir(parents=True)
    without_vllm({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    with pytest.raises(PluginError, match=rf"pip install {re.escape(str(tmp_path))}/plugins/llmkit-vllm$"):
        plugins.find("engines", "vllm")
