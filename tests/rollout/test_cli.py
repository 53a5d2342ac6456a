"""The options of `llmkit rollout`."""

from llmkit import cli
from llmkit.config.docs import describe
from llmkit.config.options import SERVER_PATHS, flag
from llmkit.config.rollout import RolloutRun
from llmkit.rollout import options

NO_SETTINGS = {"preset", "config", "overrides", "resume", "dry_run", "as_json", "help"}


def test_every_option_sets_a_key_that_the_schema_has():
    for parameter in cli.import_command("rollout").params:
        if parameter.name in NO_SETTINGS or parameter.name in SERVER_PATHS:
            continue
        describe(RolloutRun, options.PATHS[parameter.name])
        assert flag(parameter.name, options.FLAGS) in parameter.opts


def test_help_shows_meanings_defaults_and_plugins(capsys):
    assert cli.run(["rollout", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Completions of each prompt. A resumed run may have more. [default: 1]" in out
    assert "What samples the completions. One of: " in out
    assert "single_turn" in out
    assert "llmkit rollout --preset builtin-tiny" in out
    assert "select Turn rollouts into rows" in out
