"""The ASGI application."""

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmkit.serve.api_errors import ApiError
from llmkit.serve.context import CONTEXT, Context
from llmkit.serve.gate import Gate
from llmkit.serve.http import JSON, Endpoint, EndpointApp, Raw
from llmkit.serve.keys import KeyRing
from llmkit.serve.openapi import describe
from llmkit.serve.routes import ENDPOINTS
from llmkit.serve.service import Service


async def openapi_document(context: Context, request: None) -> Raw:
    """This description."""
    return Raw(msgspec.json.encode(describe(ENDPOINTS)), JSON)


def make_app(service: Service, keys: KeyRing) -> Starlette:
    """The routes behind the gate, with CORS in front when pages of other origins may ask."""
    endpoints = (*ENDPOINTS, Endpoint("GET", "/openapi.json", openapi_document))
    routes = [Route(one.path, EndpointApp(one), methods=[one.method], name=one.path) for one in endpoints]
    open_paths = frozenset(one.path for one in endpoints if one.is_open)
    gate = Middleware(Gate, service=service, keys=keys, open_paths=open_paths)
    origins = list(service.run.server.cors_origins)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "retry-after"],
    )
    return Starlette(
        routes=routes,
        middleware=[cors, gate] if origins else [gate],
        exception_handlers={HTTPException: _no_route},
    )


async def _no_route(request: Request, error: Exception) -> Response:
    """404 and 405, in the shape of the API."""
    assert isinstance(error, HTTPException)
    context: Context = request.scope[CONTEXT]
    path, method = request.scope["path"], request.scope["method"]
    text = f"{path} takes no {method}" if error.status_code == 405 else f"there is no {method} {path}"
    problem = ApiError(error.status_code, text)
    body = msgspec.json.encode(problem.document(context.dialect, context.request_id))
    return Response(body, error.status_code, media_type=JSON, headers=dict(error.headers or {}))
