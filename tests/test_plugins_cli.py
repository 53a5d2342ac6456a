import json

import pytest

from llmkit import cli

BROKEN = {"acme_bad.py": '"""Breaks on import."""\n1 / 0\n'}


class TestList:
    def test_shows_kinds_names_and_summaries(self, capsys):
        assert cli.run(["plugins", "list"]) == 0
        out = capsys.readouterr().out
        assert "\nengines\n" in out
        assert "  echo " in out
        assert "Scripted: answers with given token ids" in out

    def test_of_one_kind(self, capsys):
        assert cli.run(["plugins", "list", "--kind", "engine", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {plugin["kind"] for plugin in found} == {"engines"}
        assert {"echo", "native"} <= {plugin["name"] for plugin in found}

    def test_shows_who_brought_a_third_party_plugin_and_its_state(self, fake_package, capsys):
        fake_package("acme", {"rewards": {"bad": "acme_bad"}}, BROKEN, version="2.5")
        assert cli.run(["plugins", "list", "-k", "rewards"]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "bad" in line]
        assert "broken: cannot be imported: ZeroDivisionError" in line
        assert line.endswith("(acme 2.5)")

    def test_of_the_broken_ones_only(self, fake_package, capsys):
        fake_package("acme", {"rewards": {"bad": "acme_bad"}}, BROKEN)
        assert cli.run(["plugins", "list", "--kind", "rewards", "--broken", "--json"]) == 0
        assert [plugin["name"] for plugin in json.loads(capsys.readouterr().out)] == ["bad"]

    def test_of_an_unknown_kind(self, capsys):
        assert cli.run(["plugins", "list", "--kind", "engin"]) == 2
        assert "Did you mean 'engines'?" in capsys.readouterr().err


class TestShow:
    def test_shows_the_options_with_defaults_and_meanings(self, capsys):
        assert cli.run(["plugins", "show", "lora"]) == 0
        out = capsys.readouterr().out
        assert "r: whole number, at least 1 [default: 16]" in out
        assert "Rank of the update." in out

    def test_shows_every_kind_that_has_the_name(self, capsys):
        assert cli.run(["plugins", "show", "gsm8k", "--json"]) == 0
        assert [plugin["kind"] for plugin in json.loads(capsys.readouterr().out)] == ["datasets", "rewards"]
        assert cli.run(["plugins", "show", "gsm8k", "--kind", "rewards", "--json"]) == 0
        assert [plugin["kind"] for plugin in json.loads(capsys.readouterr().out)] == ["rewards"]

    def test_shows_the_whole_trace_of_a_broken_one(self, fake_package, capsys):
        fake_package("acme", {"rewards": {"bad": "acme_bad"}}, BROKEN)
        assert cli.run(["plugins", "show", "bad"]) == 0
        out = capsys.readouterr().out
        assert "Breaks on import." in out
        assert "Traceback (most recent call last)" in out
        assert "ZeroDivisionError: division by zero" in out

    @pytest.mark.parametrize("name", ["console", "plugins", "tiny"])
    def test_shows_any_kind(self, name, capsys):
        assert cli.run(["plugins", "show", name]) == 0
        assert "state    ok" in capsys.readouterr().out

    def test_of_an_unknown_name(self, capsys):
        assert cli.run(["plugins", "show", "lorra"]) == 2
        assert capsys.readouterr().err.startswith("error: No plugin named 'lorra'. Did you mean 'lora'?")


class TestNewAndCheck:
    def test_the_path_of_a_new_package_is_the_answer(self, tmp_path, capsys):
        assert cli.run(["plugins", "new", "reward", "politeness", "--dir", str(tmp_path)]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'llmkit-politeness'}\n"

    def test_a_directory_that_is_no_package(self, tmp_path, capsys):
        assert cli.run(["plugins", "check", str(tmp_path)]) == 2
        assert "no pyproject.toml here" in capsys.readouterr().err

    def test_an_unknown_name(self, capsys):
        assert cli.run(["plugins", "check", "no-such-plugin"]) == 2
        assert "No plugin named 'no-such-plugin'" in capsys.readouterr().err

    def test_an_installed_plugin_by_name(self):
        assert cli.run(["plugins", "check", "arithmetic"]) == 0

    def test_a_faulty_plugin_fails(self, fake_package):
        fake_package("acme", {"rewards": {"bad": "acme_bad"}}, BROKEN)
        assert cli.run(["plugins", "check", "bad"]) == 1
