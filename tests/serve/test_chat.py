"""`llmkit chat`, with a model of its own and with a server's."""

import io

from tests.serve.conftest import KEY, MODEL

from llmkit import cli


def test_a_prompt_to_a_server(server, capsys):
    assert cli.run(["chat", "--url", server.url, "--api-key", KEY, "--seed", "1", "--prompt", "Hi"]) == 0
    assert capsys.readouterr().out == "Two and two.\n\n\nIt is 4.\n"


def test_a_prompt_through_a_pipe_to_a_model_that_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is it?\n"))
    line = ["chat", "--preset", "echo", "--max-tokens", "30", "--reasoning-parser", "none"]
    assert cli.run(line) == 0
    assert capsys.readouterr().out == "user\nWhat is it?\n"


def test_a_conversation_with_commands(server, monkeypatch, capsys):
    said = iter(
        [
            "/help",
            "/set seed 0",
            "/system Be kind.",
            "Hi",
            "/retry",
            "/reset",
            "/retry",
            "/nonsense",
            "/set x 1",
            "/exit",
        ]
    )
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: next(said))
    assert cli.run(["chat", "--url", f"{server.url}/v1", "--api-key", KEY, "--model", MODEL]) == 0
    shown = capsys.readouterr()
    assert shown.out == "Hello there, world!\n" * 2
    for text in (
        "seed is 0.",
        "instructions are set",
        "is forgotten",
        "no answer to draw",
        "no /nonsense",
        "/set x 1:",
    ):
        assert text in shown.err


def test_what_goes_wrong_is_told(server, capsys):
    assert cli.run(["chat", "--url", server.url, "--api-key", "wrong", "--prompt", "Hi"]) == 1
    assert "Incorrect API key" in capsys.readouterr().err
    assert cli.run(["chat", "--url", "http://127.0.0.1:9", "--prompt", "Hi"]) == 1
    assert "no server answers there" in capsys.readouterr().err
    assert cli.run(["chat", "--url", server.url, "--engine", "echo", "--prompt", "Hi"]) == 2
    assert "no effect with --url" in capsys.readouterr().err
