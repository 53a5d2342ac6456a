"""What goes wrong with a request, in the shape of each API."""

import math
from typing import Any, Literal

import msgspec

from llmkit.errors import DataError, EngineBusyError, EngineError, LLMKitError, ModelError, RequestError

Dialect = Literal["openai", "anthropic"]

OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_exceeded",
    503: "service_unavailable",
    504: "timeout",
}
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """A request that gets an error for an answer.

    Attributes:
        status: HTTP status.
        param: field of the request that is wrong.
        code: short name of the problem, where OpenAI has one.
        retry_after_seconds: when it may be worth asking again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        headers: dict[str, str] = {}
        if self.retry_after_seconds is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_seconds)))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers

    def document(self, dialect: Dialect, request_id: str = "") -> dict[str, Any]:
        """The answer's body."""
        if dialect == "anthropic":
            kind = ANTHROPIC_TYPES.get(self.status, "api_error")
            return {"type": "error", "error": {"type": kind, "message": str(self)}, "request_id": request_id}
        kind = OPENAI_TYPES.get(self.status, "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that is wrong in itself."""
    return ApiError(400, message, param=param, code=code)


def as_api_error(error: Exception) -> ApiError:
    """What to answer when a request raised `error`."""
    match error:
        case ApiError():
            return error
        case EngineBusyError():
            return ApiError(503, str(error), code="overloaded", retry_after_seconds=error.retry_after_seconds)
        case RequestError() | DataError() | ModelError():
            return bad_request(str(error))
        case TimeoutError():
            return ApiError(504, "the request took longer than it may", code="timeout")
        case EngineError() | LLMKitError():
            return ApiError(500, str(error), code="engine_error")
        case _:
            # What it was is in the server's log, under the request's id.
            return ApiError(500, "the server failed to answer this request", code="internal_error")


def dialect_of(path: str) -> Dialect:
    """Which API a path belongs to."""
    return "anthropic" if path.startswith("/v1/messages") else "openai"


def decode_error(error: msgspec.DecodeError | UnicodeDecodeError) -> ApiError:
    """A body that is not JSON, or not what the endpoint takes."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return bad_request(f"the body is not valid JSON: {text}", code="invalid_json")
    problem, _, place = text.partition(" - at ")
    path = place.strip("`").removeprefix("$").removeprefix(".") or None
    if problem.startswith("Object contains unknown field `"):
        name = problem.split("`")[1]
        field = f"{path}.{name}" if path else name
        return bad_request(f"Unrecognized request argument supplied: {field}", field, "unknown_parameter")
    if problem.startswith("Object missing required field `"):
        name = problem.split("`")[1]
        field = f"{path}.{name}" if path else name
        return bad_request(f"Missing required parameter: '{field}'", field, "missing_required_parameter")
    where = f" for '{path}'" if path else ""
    return bad_request(f"Invalid value{where}: {problem}", path, "invalid_type")
