import json

import pytest

from llmkit import cli, doctor, machine


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(machine, "busy_cores", lambda: 0.1)


def test_json_is_one_document_with_everything(capsys):
    assert cli.run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"python", "llmkit", "torch", "transformers"} <= report["versions"].keys()
    assert report["processor"]["num_cores"] >= 1
    assert report["memory"]["total"] > 0
    assert report["torch"]["threads"] >= 1
    assert {"here", "hugging_face", "llmkit"} == report["disks"].keys()
    assert {"name": "echo", "kind": "engines", "package": "llmkit", "state": "ok", "detail": ""} in report["plugins"]
    assert report["errors"] == []


def test_people_get_the_same_in_words(capsys):
    assert cli.run(["doctor"]) == 0
    out = capsys.readouterr().out
    for heading in ("Versions", "Machine", "Disks", "Extras", "Plugins"):
        assert f"{heading}\n" in out
    assert "engines: echo, " in out
    assert out.endswith("Everything that is needed is here.\n")


def test_an_extra_that_is_not_installed_says_what_to_type(monkeypatch):
    missing = {"math": ["math-verify"]}
    monkeypatch.setattr(doctor, "unmet_of_extra", lambda distribution, extra: missing.get(extra, []))
    report = doctor.examine()
    assert report["extras"]["math"] == "pip install 'llmkit[math]'"
    assert report["extras"]["wandb"] == ""
    assert "dev" not in report["extras"]
    assert "  math: pip install 'llmkit[math]'" in doctor.describe(report)


def test_a_missing_core_package_is_an_error_and_ends_with_1(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "unmet", lambda distribution: ["peft>=0.19"])
    assert cli.run(["doctor"]) == 1
    assert "error: Missing or of another version: pip install 'peft>=0.19'" in capsys.readouterr().out


def test_a_pytorch_that_cannot_be_imported_is_an_error(monkeypatch, capsys):
    def no_torch():
        raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(machine, "torch_devices", no_torch)
    assert cli.run(["doctor"]) == 1
    assert "error: PyTorch cannot be used: libcudart.so.13" in capsys.readouterr().out


def test_what_was_never_seen_on_a_gpu_is_said_where_there_is_one(monkeypatch):
    assert "not seen on" not in " ".join(doctor.examine()["warnings"])
    gpu = {"name": "NVIDIA H200", "memory": 150_000_000_000, "capability": "9.0"}
    torch = {"threads": 4, "cuda": "13.0", "gpus": [gpu], "mps": False}
    monkeypatch.setattr(machine, "torch_devices", lambda: torch)
    (warning,) = [one for one in doctor.examine()["warnings"] if "GPU" in one]
    assert "tested without a GPU, and not seen on one" in warning
    assert "engine.runner=packed" in warning


def test_a_broken_third_party_plugin_is_a_warning(fake_package):
    fake_package("acme", {"engines": {"bad": "acme_bad"}}, {"acme_bad.py": "1 / 0"})
    report = doctor.examine()
    assert report["errors"] == []
    assert any("acme: engine 'bad' cannot be imported: ZeroDivisionError" in warning for warning in report["warnings"])


def test_cores_kept_busy_by_others_are_a_warning(monkeypatch):
    monkeypatch.setattr(machine, "busy_cores", lambda: 1000.0)
    assert any("keep 1000.0 of" in warning for warning in doctor.examine()["warnings"])
    assert not any("busy" in warning for warning in _examine_with(monkeypatch, 0.0)["warnings"])


def _examine_with(monkeypatch, busy):
    monkeypatch.setattr(machine, "busy_cores", lambda: busy)
    return doctor.examine()
