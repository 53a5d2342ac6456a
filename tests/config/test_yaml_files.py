from pathlib import Path

import pytest

from llmkit.config import yaml_files
from llmkit.config.tree import plain
from llmkit.config.yaml_files import leading_comment, read_yaml
from llmkit.errors import ConfigError


def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes):
    monkeypatch.chdir(tmp_path)
    path = Path("run.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path, "file")


def test_values_know_their_place(tmp_path, monkeypatch):
    root = read(tmp_path, monkeypatch, "seed: 7\noptim:\n  learning_rate: 1e-4\n  betas: [0.9, 0.95]\n")
    assert plain(root) == {"seed": 7, "optim": {"learning_rate": 1e-4, "betas": [0.9, 0.95]}}
    rate = root.find(("optim", "learning_rate"))
    assert rate is not None
    assert rate.key is not None
    assert (rate.origin.place, rate.origin.text) == ("run.yaml:3:18", "1e-4")
    assert rate.key.place == "run.yaml:3:3"
    second = root.find(("optim", "betas", "1"))
    assert second is not None
    assert second.origin.place == "run.yaml:4:16"


def test_quoted_and_block_text_stays_text(tmp_path, monkeypatch):
    root = read(tmp_path, monkeypatch, "a: '1'\nb: \"true\"\nc: |\n  12\nd: !!str 5\n")
    assert plain(root) == {"a": "1", "b": "true", "c": "12\n", "d": "5"}


def test_anchors_repeat_values(tmp_path, monkeypatch):
    root = read(tmp_path, monkeypatch, "a: &x {k: 1}\nb: *x\n")
    assert plain(root) == {"a": {"k": 1}, "b": {"k": 1}}


def test_byte_order_mark_and_comments_are_fine(tmp_path, monkeypatch):
    assert plain(read(tmp_path, monkeypatch, b"\xef\xbb\xbfseed: 1\n")) == {"seed": 1}
    assert plain(read(tmp_path, monkeypatch, "# nothing but defaults\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "run.yaml:3:1: a: this key was given before, at run.yaml:1:1"),
        ("o:\n  a: 1\n  a: 1\n", "run.yaml:3:3: a: this key was given before, at run.yaml:2:3"),
        ("a:\n\tb: 1\n", "run.yaml:2:1: a tab in the indentation"),
        ("a: b: c\n", "run.yaml:1:5: unexpected ':'"),
        ("a: [1, 2\nb: 3\n", "run.yaml:2:2: "),
        ("a: @x\n", "run.yaml:1:4: this character cannot begin a value"),
        ("a: 'x\n", "the file ends inside quotes"),
        ("- 1\n- 2\n", "run.yaml:1:1: a configuration is 'key: value' lines; this is a list"),
        ("hello\n", "run.yaml:1:1: a configuration is 'key: value' lines; this is the single value 'hello'"),
        ("a: 1\n---\nb: 2\n", "run.yaml:2:1: a second document begins"),
        ("a: *nobody\n", "run.yaml:1:4: no anchor &nobody before this"),
        ("a: &x [1, *x]\n", "run.yaml:1:11: no anchor &x before this"),
        ("a: &x {k: 1}\nb:\n  <<: *x\n", "run.yaml:3:3: merge keys (<<) are not read"),
        ("a: !!python/name:os.system x\n", "run.yaml:1:4: tags (tag:yaml.org,2002:python/name:os.system) are not read"),
        ("? [1]\n: 2\n", "run.yaml:1:3: a key is plain text"),
        ("", "run.yaml: the file is empty"),
        ("  \n\n", "run.yaml: the file is empty"),
        (b"seed: 1\nname: \xff\xe9\n", "run.yaml:2: not UTF-8 (byte 0xff)"),
        ("seed: 1\n".encode("utf-16"), "run.yaml: not UTF-8 but UTF-16"),
        (b"\x7fELF\x00\x01\x02", "run.yaml: not a text file"),
        ("a: " + "[" * 60 + "]" * 60, "nested deeper than 50 levels"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(tmp_path, monkeypatch, text, message):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, monkeypatch, text)
    assert str(caught.value).startswith(message) or message in str(caught.value)
    assert str(caught.value).startswith("run.yaml")
    assert "\n" not in str(caught.value)


def test_aliases_cannot_fill_the_memory(tmp_path, monkeypatch):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match="more than 100000 values; aliases"):
        read(tmp_path, monkeypatch, "\n".join(lines))


def test_missing_file_suggests_its_neighbour(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gsm8k.yaml").write_text("seed: 1")
    with pytest.raises(ConfigError, match=r"^gsm8k.yml: no such file. Did you mean 'gsm8k.yaml'\?$"):
        read_yaml(Path("gsm8k.yml"), "file")
    with pytest.raises(ConfigError, match="there is no directory away either"):
        read_yaml(Path("away/run.yaml"), "file")


def test_directory_and_unreadable_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    with pytest.raises(ConfigError, match=r"^run: this is a directory; give a YAML file"):
        read_yaml(Path("run"), "file")
    Path("run/config.yaml").write_text("seed: 1")
    with pytest.raises(ConfigError, match=r"did you mean run/config.yaml\?"):
        read_yaml(Path("run"), "file")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match=r"^run/config\.yaml: cannot be read: Permission denied"):
        read_yaml(Path("run/config.yaml"), "file")


def test_the_pure_python_parser_gives_the_same(tmp_path, monkeypatch):
    text = "a: &x 1e-4\nb: [*x, 'no', no]\nc:\n  d: |\n    text\n"
    fast = read(tmp_path, monkeypatch, text)
    monkeypatch.delattr("yaml.CSafeLoader", raising=False)
    assert read(tmp_path, monkeypatch, text) == fast


def test_leading_comment():
    assert leading_comment("# Trains\n#\n# a thing.\nseed: 1\n# no\n") == "Trains\n\na thing."
    assert leading_comment("seed: 1\n") == ""


def test_paths_below_the_working_directory_are_shown_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert yaml_files.shown_path(tmp_path / "a" / "b.yaml") == "a/b.yaml"
    assert yaml_files.shown_path(Path("/elsewhere/b.yaml")) == "/elsewhere/b.yaml"
