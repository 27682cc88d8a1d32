"""Every error of the management side as an OpenAI-shaped answer. The tree is drawn in `kernel/errors.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from indigo.gateway.errors import error_body
from indigo.gateway.http import MethodNotAllowed
from indigo.kernel.errors import IndigoError, InvalidRequest, NotFound, TooLarge, Unauthorized

AllowedMethods = Callable[[Request], frozenset[str]]


def error_response(error: IndigoError, request_id: str) -> Response:
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="indigo"'
    return Response(error_body(error, request_id), error.status, headers, "application/json")


def install(app: FastAPI, allowed_methods: AllowedMethods) -> None:
    """Render what routes raise. What they did not mean to raise is `web.edge`'s to catch."""

    async def indigo_error(request: Request, error: Exception) -> Response:
        return error_response(cast(IndigoError, error), request.state.request_id)

    async def invalid(request: Request, error: Exception) -> Response:
        return error_response(_from_validation(cast(RequestValidationError, error)), request.state.request_id)

    async def http_error(request: Request, error: Exception) -> Response:
        return _from_http(request, cast(HTTPException, error), allowed_methods(request))

    app.add_exception_handler(IndigoError, indigo_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)


def _from_validation(error: RequestValidationError) -> InvalidRequest:
    """The first of the errors, naming the field but never echoing its value, which may be a secret."""
    first: Mapping[str, Any] = error.errors()[0]
    where = [str(part) for part in first["loc"][1:]]
    param = ".".join(where) or None
    if first["type"] == "json_invalid":
        return InvalidRequest("The request body is not valid JSON.", code="invalid_json")
    return InvalidRequest(f"{param or 'The request body'}: {first['msg']}.", code="invalid_value", param=param)


def _from_http(request: Request, error: HTTPException, allowed: frozenset[str]) -> Response:
    """Errors of the framework itself: no such path, or no such method there."""
    path, method = request.url.path, request.method
    if error.status_code in (404, 405) and allowed and method not in allowed:
        methods = ", ".join(sorted(allowed))
        answer = error_response(
            MethodNotAllowed(f"{path} does not take {method}; it takes {methods}."), request.state.request_id
        )
        answer.headers["Allow"] = methods
        return answer
    if error.status_code == 404:
        return error_response(
            NotFound(f"There is nothing at {path}; see /openapi.json for what there is.", code="unknown_path"),
            request.state.request_id,
        )
    if error.status_code == 413:
        return error_response(TooLarge("The request body is too large."), request.state.request_id)
    other = InvalidRequest(HTTPStatus(error.status_code).phrase + ".")
    other.status = error.status_code
    return error_response(other, request.state.request_id)
