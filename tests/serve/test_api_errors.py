"""What an error becomes for a client."""

import pytest

from llmkit.config.serving import LimitsConfig, ServeRun
from llmkit.errors import DataError, EngineBusyError, EngineError, RequestError
from llmkit.serve.admission import Admission
from llmkit.serve.api_errors import ApiError, as_api_error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("too long"), 400),
        (DataError("the template refuses"), 400),
        (EngineBusyError("full", 2.2), 503),
        (EngineError("broken"), 500),
        (TimeoutError(), 504),
        (ZeroDivisionError("secret"), 500),
    ],
)
def test_each_error_has_a_status(error, status):
    problem = as_api_error(error)
    assert problem.status == status
    assert "secret" not in str(problem)


def test_a_busy_engine_says_when_to_come_again():
    assert as_api_error(EngineBusyError("full", 2.2)).headers["retry-after"] == "3"


def test_the_two_shapes():
    problem = ApiError(429, "slow down", param="n", code="rate_limit_exceeded")
    assert problem.document("openai") == {
        "error": {"message": "slow down", "type": "rate_limit_exceeded", "param": "n", "code": "rate_limit_exceeded"}
    }
    assert problem.document("anthropic", "req_1") == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "slow down"},
        "request_id": "req_1",
    }


def test_places_are_counted_by_key_and_given_back_once():
    admission = Admission(LimitsConfig(max_requests=3, max_requests_per_key=2))
    first, _ = admission.enter("a"), admission.enter("a")
    with pytest.raises(ApiError) as caught:
        admission.enter("a")
    assert caught.value.status == 429
    admission.enter("b")
    with pytest.raises(ApiError) as caught:
        admission.enter("c")
    assert caught.value.status == 503
    first.leave()
    first.leave()
    assert admission.num_requests == 2
    admission.is_closed = True
    with pytest.raises(ApiError, match="shutting down"):
        admission.enter("c")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_an_open_address_without_keys_is_refused(host):
    with pytest.raises(ValueError, match="no API key"):
        ServeRun.model_validate({"engine": {"name": "echo"}, "server": {"host": host}})
    ServeRun.model_validate({"engine": {"name": "echo"}, "server": {"host": host}, "auth": {"keys": ["sk"]}})
    ServeRun.model_validate({"engine": {"name": "echo"}, "server": {"host": "127.0.0.1"}})
