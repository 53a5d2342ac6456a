import fcntl
import json
import sys
import zipfile
from pathlib import Path

import pytest

from llmkit.cli import run
from llmkit.engines.servers import installing
from llmkit.engines.servers.environments import (
    Environment,
    engines_directory,
    find_program,
    interpreter,
    last_seen,
    note_seen,
    remember,
    remembered,
)
from llmkit.engines.servers.installing import install
from llmkit.engines.servers.probing import probe
from llmkit.engines.servers.program import Program, Recipe
from llmkit.errors import ConfigError, EngineError

PROGRAM = Program(
    name="small",
    title="Small",
    command=(),
    options={},
    module="smallengine",
    package="small-metadata",
    recipes={"cpu": Recipe(("smallengine==1.0",), remove=("harmful",), metadata={"small-metadata": "1.0"})},
    how_to_install="Build it",
)


@pytest.fixture(autouse=True)
def _own_data(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMKIT_DATA", str(tmp_path / "data"))


@pytest.fixture
def wheels(tmp_path) -> tuple[str, ...]:
    """Arguments with which pip finds two small packages, and nothing else."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    wheel(directory, "smallengine", "1.0", "Requires-Dist: harmful\n")
    wheel(directory, "harmful", "2.0")
    return "--no-index", "--find-links", str(directory)


def wheel(directory: Path, name: str, version: str, more: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


def environments() -> list[str]:
    return sorted(path.name for path in engines_directory().iterdir() if path.is_dir())


def test_an_environment_is_made_whole_and_takes_the_place_of_the_former(wheels, monkeypatch):
    told: list[str] = []
    environment = install(PROGRAM, "cpu", wheels, told.append)
    assert environment == remembered("small")
    assert environment.managed
    assert environment.version == "1.0"
    assert find_program(PROGRAM, None) == environment.python
    assert probe(PROGRAM, environment.python).versions == {"small-metadata": "1.0"}  # the harmful one was taken out
    assert any("Successfully installed" in line for line in told)

    with pytest.raises(EngineError, match=r"(?s)failed \(exit code 1.*No matching distribution found for smallengine"):
        install(PROGRAM, "cpu", ("--no-index",), told.append)
    assert remembered("small") == environment
    assert environments() == [Path(environment.directory or "").name]

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(installing, "probe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            install(PROGRAM, "cpu", wheels, told.append)
    assert environments() == [Path(environment.directory or "").name]

    (engines_directory() / "small-20200101-000000").mkdir()  # of an installation that was killed
    monkeypatch.setattr(installing.time, "strftime", lambda form: "20300101-000000")
    second = install(PROGRAM, "cpu", wheels, told.append)
    assert environments() == ["small-20300101-000000"]
    assert Path(second.python).parts[-3] == "small-20300101-000000"


def test_one_installation_at_a_time(wheels):
    engines_directory().mkdir(parents=True)
    with (engines_directory() / "small.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EngineError, match="Small is being installed by another process"):
            install(PROGRAM, "cpu", wheels, print)


def test_a_device_without_a_recipe_says_how_to_go_on():
    with pytest.raises(ConfigError, match=r"cannot install Small for cuda\. Build it; then name it: .* --python PATH"):
        install(PROGRAM, "cuda", (), print)


def test_an_environment_that_is_not_whole_is_described(tmp_path, wheels):
    environment = install(PROGRAM, "cpu", wheels, print)
    site = next(Path(environment.directory or "").glob("lib/python*/site-packages"))
    (site / "smallengine.py").write_text("import no_such_module")
    assert probe(PROGRAM, environment.python).faults == (
        "smallengine cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
    )
    (site / "smallengine.py").write_text("")
    for path in (site / "small_metadata-1.0.dist-info").iterdir():
        path.unlink()
    (fault,) = probe(PROGRAM, environment.python).faults
    assert fault.startswith("there is no metadata of the package small-metadata")
    wheel(site, "torch", "2.0+cpu")
    wheel(site, "harmful", "2.0")
    for name in ("torch-2.0+cpu", "harmful-2.0"):
        with zipfile.ZipFile(site / f"{name}-py3-none-any.whl") as archive:
            archive.extractall(site)
    assert "harmful is a build for CUDA beside a PyTorch for CPUs" in probe(PROGRAM, environment.python).faults[0]


def test_a_python_that_does_not_work_is_described(tmp_path):
    assert probe(PROGRAM, "/no/such/python").faults == ("/no/such/python: No such file or directory",)
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho broken >&2\nexit 7\n")
    script.chmod(0o700)
    assert probe(PROGRAM, str(script)).faults == (f"{script} ended with exit code 7 and said: broken",)


def test_what_is_not_installed_says_how_it_would_be(tmp_path):
    with pytest.raises(ConfigError, match="Small is not installed: run `llmkit engines install small`, or set engine"):
        find_program(PROGRAM, None)
    remember("small", Environment(str(tmp_path / "gone")))
    with pytest.raises(ConfigError, match=r"gone: the environment of Small has gone; run `llmkit engines install"):
        find_program(PROGRAM, None)
    with pytest.raises(ConfigError, match=r"engine\.python=nowhere: no interpreter there"):
        interpreter("nowhere", "engine.python")
    (engines_directory() / "small.json").write_text("{")
    with pytest.raises(EngineError, match=r"small\.json: cannot be read .* run `llmkit engines install small` again"):
        remembered("small")


def test_a_program_outside_python_is_looked_for_on_the_path(tmp_path, monkeypatch):
    program = Program(name="big", title="Big", command=(), options={}, executable="big", how_to_install="Build it.")
    with pytest.raises(ConfigError, match=r"Big: no big on the PATH\. Build it\."):
        find_program(program, None)
    (tmp_path / "big").touch(mode=0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program(program, None) == str(tmp_path / "big")
    with pytest.raises(ConfigError, match=r"engine\.python=x: Big is no Python package; put big on the PATH"):
        find_program(program, "x")


def test_a_directory_of_an_environment_stands_for_its_python(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("/bin/sh")
    assert interpreter(str(tmp_path), "engine.python") == str(tmp_path / "bin" / "python")  # the link, not its target


def test_when_a_server_was_last_ready_is_noted(monkeypatch, tmp_path):
    assert last_seen("small") is None
    note_seen(PROGRAM, "cpu")
    assert (last_seen("small") or "").endswith(" on cpu")
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("LLMKIT_DATA", str(blocked))
    note_seen(PROGRAM, "cpu")  # serving goes on where nothing can be noted
    assert last_seen("small") is None


FRONT = """
'''A small engine.'''
from llmkit.config.servers import ServerEngineConfig
from llmkit.engines.servers.program import Program
PROGRAM = Program(name="small", title="Small", command=(), options={}, module="json", package="pip",
                  how_to_install="Build it", seen_running="")
class Config(ServerEngineConfig):
    '''Small.'''
def build(config, context):
    '''Nothing.'''
"""


def test_the_commands_show_what_is_installed_where(fake_package, capsys, tmp_path):
    fake_package("acme", {"engines": {"small": "acme"}}, {"acme.py": FRONT})
    assert run(["engines", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["native"]["kind"] == "in-process"
    assert rows["small"]["installed"] is False
    assert "Build it, then run `llmkit engines install small --python PATH`" in rows["small"]["detail"]

    assert run(["engines", "doctor", "small"]) == 1
    assert "last ready   never on this machine" in capsys.readouterr().out
    assert run(["engines", "install", "small", "--device", "cpu"]) == 2
    assert "llmkit cannot install Small for cpu" in capsys.readouterr().err
    assert run(["engines", "install", "native"]) == 2
    assert "starts no server of its own" in capsys.readouterr().err

    assert run(["engines", "install", "small", "--python", sys.executable, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["python"], document["managed"]) == (sys.executable, False)
    assert document["version"]
    assert run(["engines", "doctor", "small", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["installed"]
    assert report["faults"] == []
    assert report["seen_running"] == ""
    assert run(["engines", "doctor", "small"]) == 0
    assert "its documentation alone: llmkit's tests never ran it" in capsys.readouterr().out
    assert run(["engines", "list"]) == 0
    assert f"{document['version']} in {sys.executable}" in capsys.readouterr().out
    assert run(["engines", "install", "small", "--python", "/bin/sh"]) == 2
    assert "cannot be used for Small" in capsys.readouterr().err


def test_a_plugin_that_cannot_be_imported_does_not_hide_the_others(fake_package, capsys):
    fake_package("acme", {"engines": {"small": "acme"}}, {"acme.py": "import no_such_module"})
    assert run(["engines", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["small"]["kind"] == "broken"
    assert "it needs 'no_such_module', which is not installed" in rows["small"]["detail"]
    assert rows["echo"]["installed"]
