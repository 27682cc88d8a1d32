"""Around every management request: its id in and out, caching headers, and the net under uncaught errors.

Pure ASGI, so that answers stream and context variables hold. What an error looks like is `web.errors`'.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indigo.kernel.errors import Internal
from indigo.kernel.ids import new_id
from indigo.kernel.logs import request_id_var
from indigo.web.errors import error_response

log = logging.getLogger("indigo.web")

_ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def request_id_of(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's own X-Request-Id where it sent one, well-formed; else a new one."""
    given = [value for name, value in headers if name == b"x-request-id"]
    if len(given) == 1 and _ACCEPTED.fullmatch(given[0]):
        return given[0].decode("ascii")
    return new_id("req")


class Edge:
    """The outermost middleware. The state gets `request_id`, and whether a key was asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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
            await self._app(scope, receive, send_marked)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"], extra={"code": Internal.code})
            if started:
                raise
            failure = Internal(
                f"Something went wrong on our side. Give this id to your operator: {request_id}."
            )
            await error_response(failure, request_id)(scope, receive, send_marked)
        finally:
            request_id_var.reset(token)


def _marks(request_id: str, authenticated: bool) -> list[tuple[bytes, bytes]]:
    marks = [(b"x-request-id", request_id.encode("ascii")), (b"x-content-type-options", b"nosniff")]
    if authenticated:
        marks.append((b"cache-control", b"no-store"))
    return marks
