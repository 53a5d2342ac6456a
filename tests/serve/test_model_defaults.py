import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmkit.config.resolve import resolve
from llmkit.config.schema import ModelConfig
from llmkit.config.serving import ServeRun
from llmkit.errors import ModelError
from llmkit.models.loading import checkpoint_path
from llmkit.serve.assembly import open_service
from llmkit.serve.model_defaults import ModelDefaults, read_defaults
from llmkit.serve.sampling import openai_sampling
from llmkit.serve.schemas.completions import CompletionRequest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    shutil.copytree(checkpoint_path(ModelConfig(path="builtin:tiny-untrained")), directory)
    return directory


def read(model: Path, settings: Any) -> ModelDefaults:
    """The defaults of a model with these settings in its file."""
    (model / "generation_config.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return read_defaults(ModelConfig(path=str(model)), 512)


def test_a_request_has_the_last_word(model):
    defaults = read(model, {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [2, 0], "max_length": 20})
    assert defaults == ModelDefaults(temperature=0.6, top_k=20, top_p=0.95, end_ids=(2, 0))

    def drawn(**body: Any):
        request = CompletionRequest(model="m", prompt="a", **body)
        return openai_sampling(request, max_new_tokens=4, end_ids=(0,), defaults=defaults)

    assert (drawn().temperature, drawn().top_k, drawn().top_p) == (0.6, 20, 0.95)
    # Greedy, and every token: both are falsy, and both are said.
    own = drawn(temperature=0, top_k=0, top_p=1)
    assert (own.temperature, own.top_k, own.top_p) == (0, 0, 1)


def test_the_engine_computes_log_probabilities_where_a_request_asks_for_them():
    def asks(**options: Any) -> bool:
        request = CompletionRequest(model="m", prompt="a")
        return openai_sampling(
            request, max_new_tokens=4, end_ids=(), defaults=ModelDefaults(), **options
        ).wants_logprobs

    assert asks(top_logprobs=0)
    assert not asks()


def test_without_the_file_sampling_is_plain(model):
    (model / "generation_config.json").unlink(missing_ok=True)
    assert read_defaults(ModelConfig(path=str(model)), 512) == ModelDefaults()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("{", "cannot be read"),
        ([], "not a JSON object"),
        ({"temperature": -1}, "temperature=-1: must be 0 or more"),
        ({"top_p": "high"}, "top_p='high' is no number"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: must be a whole number, 1 or more"),
        ({"top_k": 2.5}, "top_k=2.5: must be a whole number"),
        ({"eos_token_id": [2, 512]}, "eos_token_id=[2, 512]: 512 is no token of this model"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(model, settings, problem):
    with pytest.raises(ModelError, match="model_defaults=false") as refused:
        read(model, settings)
    assert f"generation_config.json: {problem}" in str(refused.value)


@pytest.mark.parametrize(("own", "expected"), [(7, 7), (10_000, 100), (None, 100)])
def test_an_answer_of_no_given_length_has_at_most_the_tokens_that_the_model_names(model, own, expected):
    defaults = read(model, {"max_new_tokens": own})
    run = resolve(
        ServeRun, command="serve", overrides=["engine.name=echo", "limits.max_new_tokens=100"], environ={}
    ).run

    async def lengths() -> tuple[int, int]:
        service = await open_service(run)
        service.defaults = defaults
        try:
            return service.new_tokens(10, None), service.new_tokens(10, 50)
        finally:
            await service.close()

    assert asyncio.run(lengths()) == (expected, 50)


PLAIN = """
from llmkit.config.section import Section


class Config(Section):
    \"\"\"Nothing to choose.\"\"\"


def build(config, context):
    return Plain()


class Plain:
    \"\"\"Is never asked for anything.\"\"\"

    async def close(self):
        pass
"""


def test_what_a_plain_engine_does_not_know_is_told_and_left_out(model, fake_package, caplog):
    fake_package("acme", {"engines": {"plain": "acme"}}, {"acme.py": PLAIN})
    settings = {"temperature": 0.6, "repetition_penalty": 1.05}
    (model / "generation_config.json").write_text(json.dumps(settings))
    overrides = [f"model.path={model}", "engine.name=plain"]
    run = resolve(ServeRun, command="serve", overrides=overrides, environ={}).run

    async def defaults() -> ModelDefaults:
        service = await open_service(run)
        await service.close()
        return service.defaults

    assert asyncio.run(defaults()) == ModelDefaults(temperature=0.6)
    assert "engine.name=plain knows no min_p and no repetition_penalty" in caplog.text
