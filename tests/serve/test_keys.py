"""API keys: hashes at rest, made, listed and revoked from the command line."""

import json
import stat

import pytest

from llmkit import cli
from llmkit.errors import ConfigError
from llmkit.serve.keys import KeyRing, new_key, read_keys


def test_a_key_is_printed_once_and_kept_as_a_hash(tmp_path, capsys):
    path = tmp_path / "deep" / "keys.json"
    assert cli.run(["serve", "keys", "new", "--name", "laptop", "--keys-file", str(path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["key"] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = KeyRing(path=path)
    assert ring.identify(made["key"]) == made["id"]
    assert ring.identify(made["key"] + "x") is None
    assert ring.identify("\udcff") is None

    assert cli.run(["serve", "keys", "list", "--keys-file", str(path), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["id"], listed["name"]) == (made["id"], "laptop")
    assert "sha256" not in listed

    assert cli.run(["serve", "keys", "revoke", made["id"], "--keys-file", str(path)]) == 0
    assert read_keys(path) == []
    assert cli.run(["serve", "keys", "revoke", made["id"], "--keys-file", str(path)]) == 2


def test_a_ring_without_keys_is_open_and_an_empty_file_is_not(tmp_path):
    path = tmp_path / "keys.json"
    text, entry = new_key(path, "")
    assert KeyRing().is_open
    assert not KeyRing(path=path).is_open
    assert not KeyRing(["sk"]).is_open
    assert KeyRing(["sk"], path).identify("sk") == "settings-1"
    assert KeyRing(["sk"], path).identify(text) == entry.id


@pytest.mark.parametrize("text", ["", "[]", '{"keys": [{"id": "x"}]}', "nonsense"])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a file of API keys"):
        read_keys(path)


def test_a_file_that_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(ConfigError, match="llmkit serve keys new"):
        KeyRing(path=tmp_path / "none.json")
