"""Around every management request: its id, caching headers, a cap on its body, the net under uncaught errors.

Pure ASGI, so that answers stream and context variables hold. What an error looks like is `web.errors`'.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indigo.gateway.connection import REQUEST_ID
from indigo.kernel.errors import Internal
from indigo.kernel.ids import new_id
from indigo.kernel.logs import request_id_var
from indigo.web.errors import error_response

log = logging.getLogger("indigo.web")


def request_id_of(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's own X-Request-Id where it sent one, well-formed; else a new one."""
    given = [value for name, value in headers if name == b"x-request-id"]
    if len(given) == 1 and REQUEST_ID.fullmatch(given[0]):
        return given[0].decode("ascii")
    return new_id("req")


class Edge:
    """The outermost middleware. The state gets `request_id`, and whether a key was asked for."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        request_id = state["request_id"] = request_id_of(scope["headers"])
        state["authenticated"] = False
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *message.get("headers", ()),
                    *_marks(request_id, state["authenticated"]),
                ]
            await send(message)

        token = request_id_var.set(request_id)
        try:
            await self._app(scope, self._capped(receive), send_marked)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"], extra={"code": Internal.code})
            if started:
                raise
            failure = Internal(f"Something went wrong on our side. Give this id to your operator: {request_id}.")
            await error_response(failure, request_id)(scope, receive, send_marked)
        finally:
            request_id_var.reset(token)

    def _capped(self, receive: Receive) -> Receive:
        """`receive`, until the body is over the cap, whatever length it declared."""
        read = 0

        async def receive_some() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_body:
                # The framework lets its own exceptions through while it reads a body, and no others.
                raise HTTPException(413)
            return message

        return receive_some


def _marks(request_id: str, authenticated: bool) -> list[tuple[bytes, bytes]]:
    marks = [(b"x-request-id", request_id.encode("ascii")), (b"x-content-type-options", b"nosniff")]
    if authenticated:
        marks.append((b"cache-control", b"no-store"))
    return marks
