import os
import subprocess
import sys

import pytest

from llmkit import cli

HELLO = '''
    """Greets from a third party."""
    import typer
    app = typer.Typer()

    @app.command()
    def hello(name: str = typer.Option("world", help="Whom to greet.")) -> None:
        """Greet."""
        print(f"Hello, {name}!")
'''
GROUP = '''
    """Two commands in one."""
    import typer
    app = typer.Typer(help=__doc__)

    @app.command()
    def one() -> None:
        """The first."""
        print("one")

    @app.command()
    def two() -> None:
        """The second."""
        print("two")
'''


def llmkit(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmkit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ}, check=False)


class TestHelp:
    def test_lists_every_command_with_its_summary_and_shows_examples(self, capsys):
        assert cli.run(["--help"]) == 0
        out = capsys.readouterr().out
        for command in ("config", "doctor", "plugins", "presets", "train"):
            assert f"  {command} " in out
        assert "llmkit train grpo --preset gsm8k-tiny" in out

    def test_h_is_short_for_it_everywhere(self, capsys):
        assert cli.run(["-h"]) == 0
        assert cli.run(["plugins", "list", "-h"]) == 0
        assert "Usage: llmkit plugins list" in capsys.readouterr().out

    def test_without_arguments_is_the_help(self, capsys):
        assert cli.run([]) == 2
        assert "Usage: llmkit" in capsys.readouterr().err

    def test_of_a_subcommand_has_no_completion_options(self, capsys):
        assert cli.run(["plugins", "--help"]) == 0
        assert "--install-completion" not in capsys.readouterr().out


def test_version(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == "llmkit 0.1.0\n"


def test_a_typo_is_answered_with_a_suggestion(capsys):
    assert cli.run(["trian"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: No command named 'trian'. Did you mean 'train'?")
    assert error.count("\n") == 1


def test_an_unknown_option_is_bad_input(capsys):
    assert cli.run(["--no-such-option"]) == 2
    assert "--no-such-option" in capsys.readouterr().err


def test_a_rival_for_one_of_our_commands_is_told_of_and_can_be_told_apart(fake_package, capsys):
    fake_package("acme", {"commands": {"train": "acme_hello:app"}}, {"acme_hello.py": HELLO})
    assert cli.run(["train"]) == 2
    assert "acme and llmkit. Choose one: acme:train, llmkit:train." in capsys.readouterr().err
    assert cli.run(["acme:train"]) == 0
    assert capsys.readouterr().out == "Hello, world!\n"
    assert cli.run(["llmkit:train", "sft", "--help"]) == 0
    assert cli.run(["--version"]) == 0


class TestThirdPartyCommand:
    def test_appears_beside_ours_and_runs(self, fake_package, capsys):
        fake_package("acme", {"commands": {"hello": "acme_hello:app"}}, {"acme_hello.py": HELLO})
        assert cli.run(["--help"]) == 0
        assert "Greets from a third party." in capsys.readouterr().out
        assert cli.run(["hello", "--name", "Ada"]) == 0
        assert capsys.readouterr().out == "Hello, Ada!\n"

    def test_with_one_command_takes_its_options_itself(self, fake_package, capsys):
        fake_package("acme", {"commands": {"hello": "acme_hello:app"}}, {"acme_hello.py": HELLO})
        assert cli.run(["hello", "--help"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("Usage: llmkit hello [OPTIONS]")
        assert "Whom to greet." in out
        assert "--install-completion" not in out

    def test_with_several_commands_is_a_group(self, fake_package, capsys):
        fake_package("acme", {"commands": {"pair": "acme_pair:app"}}, {"acme_pair.py": GROUP})
        assert cli.run(["pair", "two"]) == 0
        assert capsys.readouterr().out == "two\n"

    def test_is_suggested_on_a_typo(self, fake_package, capsys):
        fake_package("acme", {"commands": {"hello": "acme_hello:app"}}, {"acme_hello.py": HELLO})
        assert cli.run(["helo"]) == 2
        assert "Did you mean 'hello'?" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("source", "complaint"),
        [
            ("import surely_not_installed", "pip install 'surely_not_installed'"),
            ("1 / 0", "ZeroDivisionError"),
            ("def broken(:", "SyntaxError"),
            ("app = 5", "builtins.int"),
            ("import typer\napp = typer.Typer()", "not a usable typer.Typer"),
        ],
    )
    def test_that_is_broken_says_so_when_typed_and_harms_nobody(self, fake_package, source, complaint):
        fake_package("acme", {"commands": {"bad": "acme_bad:app"}}, {"acme_bad.py": source})
        assert llmkit("--help").returncode == 0
        assert llmkit("plugins", "list", "--help").returncode == 0
        typed = llmkit("bad", "--help")
        assert typed.returncode == 2
        assert typed.stdout == ""
        assert typed.stderr.startswith("error: The command 'bad' of acme 1.0")
        assert complaint in typed.stderr
        assert "Traceback" not in typed.stderr

    def test_is_imported_only_when_typed(self, fake_package):
        source = '"""Loud."""\nprint("imported")\nimport typer\napp = typer.Typer()\n@app.command()\ndef loud(): ...\n'
        fake_package("acme", {"commands": {"loud": "acme_loud:app"}}, {"acme_loud.py": source})
        assert "imported" not in llmkit("--help").stdout
        assert "imported" not in llmkit("plugins", "--help").stdout
        assert "imported" in llmkit("loud").stdout


class TestExitCodes:
    @pytest.mark.parametrize(
        ("raised", "code", "error"),
        [
            ("errors.DataError('rows.jsonl:3: no text')", 2, "error: rows.jsonl:3: no text\n"),
            ("errors.EngineError('out of memory')", 1, "error: out of memory\n"),
            ("errors.RunInterrupted('saved at step 3')", 130, "saved at step 3\n"),
            ("KeyboardInterrupt", 130, ""),
            ("typer.Exit(7)", 7, ""),
            ("SystemExit('a word')", 1, "a word\n"),
            ("SystemExit", 0, ""),
        ],
    )
    def test_each_kind_of_end_has_its_own(self, fake_package, capsys, raised, code, error):
        source = f"""
            import typer
            from llmkit import errors
            app = typer.Typer()

            @app.command()
            def fail() -> None:
                raise {raised}
        """
        fake_package("acme", {"commands": {"fail": "acme_fail:app"}}, {"acme_fail.py": source})
        assert cli.run(["fail"]) == code
        assert capsys.readouterr().err == error

    def test_a_bug_shows_its_trace(self, fake_package):
        source = "import typer\napp = typer.Typer()\n@app.command()\ndef fail():\n    raise KeyError('ours')\n"
        fake_package("acme", {"commands": {"fail": "acme_fail:app"}}, {"acme_fail.py": source})
        ended = llmkit("fail")
        assert ended.returncode == 1
        assert ended.stderr.startswith("Traceback (most recent call last)")
        assert ended.stderr.endswith("KeyError: 'ours'\n")

    def test_a_reader_that_has_gone_ends_it_quietly(self, fake_package):
        source = "import typer\napp = typer.Typer()\n@app.command()\ndef talk():\n    print('x' * 1000000)\n"
        fake_package("acme", {"commands": {"talk": "acme_talk:app"}}, {"acme_talk.py": source})
        command = [sys.executable, "-m", "llmkit", "talk"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() == 1


class TestCompletion:
    """The protocol of the installed shell scripts: the line in the environment, candidates on standard output."""

    def bash(self, line: str) -> list[str]:
        words = line.split(" ")
        done = llmkit(_LLMKIT_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
        assert done.stderr == ""
        return done.stdout.split()

    def test_of_commands(self):
        assert self.bash("llmkit tr") == ["train"]
        assert {"config", "doctor", "plugins", "presets", "train"} <= set(self.bash("llmkit "))

    def test_of_subcommands(self):
        assert self.bash("llmkit train ") == ["sft", "dpo", "grpo"]

    def test_of_options(self):
        assert self.bash("llmkit train grpo --kl") == ["--kl-coef"]

    def test_of_presets(self):
        assert "gsm8k-tiny" in self.bash("llmkit train grpo --preset gsm")

    def test_of_plugins(self):
        assert {"echo", "native", "openai"} <= set(self.bash("llmkit train grpo --engine "))
        assert self.bash("llmkit plugins show question") == ["question_answer"]

    def test_after_other_options_with_values(self):
        assert self.bash("llmkit train sft --resume --learning-rate 1e-5 --adapter gral") == ["gralora"]

    def test_of_third_party_commands_imports_none(self, fake_package):
        fake_package("acme", {"commands": {"bad": "acme_bad:app"}}, {"acme_bad.py": "1 / 0"})
        assert self.bash("llmkit ba") == ["bad"]

    def test_of_a_broken_command_is_silent(self, fake_package):
        fake_package("acme", {"commands": {"bad": "acme_bad:app"}}, {"acme_bad.py": "1 / 0"})
        assert "Traceback" not in " ".join(self.bash("llmkit bad --"))

    def test_in_zsh_and_fish_shows_summaries(self):
        zsh = llmkit(_LLMKIT_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="llmkit tr")
        assert '"train":"Train' in zsh.stdout
        fish = llmkit(
            _LLMKIT_COMPLETE="complete_fish", _TYPER_COMPLETE_FISH_ACTION="get-args", _TYPER_COMPLETE_ARGS="llmkit tr"
        )
        assert fish.stdout.startswith("train\t")

    @pytest.mark.parametrize("line", ["llmkit tr", "llmkit train grpo --eng", "llmkit train grpo --preset g"])
    def test_imports_neither_torch_nor_pydantic(self, line):
        command = [sys.executable, "-X", "importtime", "-m", "llmkit"]
        environ = {"_LLMKIT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ}, check=True)
        imported = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
        assert "typer" in imported
        assert not imported & {"torch", "pydantic", "transformers", "datasets", "numpy"}

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_is_installed_by_an_option(self, shell, tmp_path):
        environ = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        shown = llmkit("--show-completion", shell, **environ)
        assert shown.returncode == 0
        assert "_LLMKIT_COMPLETE" in shown.stdout
        assert llmkit("--install-completion", shell, **environ).returncode == 0
        assert any("llmkit" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
