"""A request on its way through the gateway, once it has been read and authorized, and the client it came from."""

from __future__ import annotations

from typing import Any, Protocol

from indigo.gateway import body as bodies
from indigo.gateway.body import Ask
from indigo.gateway.ports import Grant, ModelEntry, Target
from indigo.gateway.upstream.call import Call

SUFFIXES = {
    "chat.completions": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
    "rerank": "/rerank",
}


NOTHING = Ask(model="?")


class Client(Protocol):
    """Who asked, over HTTP or from within the process. `call` is the attempt now under way."""

    call: Call | None

    def begin(self, data: bytes) -> None:
        """Send the head of a stream, with its first events."""
        ...

    def write(self, data: bytes) -> None:
        """Send more events."""
        ...


class Request:
    __slots__ = ("_body", "ask", "client", "entry", "grant", "id", "operation", "stream")

    def __init__(
        self, *, id: str, operation: str, grant: Grant, entry: ModelEntry, ask: Ask, body: bytes, stream: bool,
        client: Client,
    ) -> None:  # fmt: skip
        self.id = id
        self.operation = operation
        self.grant = grant
        self.entry = entry
        self.ask = ask
        self.stream = stream
        self.client = client
        self._body = body

    def forget(self) -> None:
        """There will be no other attempt: let go of the body, and of what was decoded from it."""
        self._body = b""
        self.ask = NOTHING

    def payload(self, entry: ModelEntry, target: Target) -> bytes:
        """The bytes to send to `target`: a head of our own, and the client's body wherever it can stay as it is.

        `entry` is the model that is asked: this request's own, or one it falls back to.
        """
        body = self._for(entry, target)
        endpoint = target.endpoint
        address = endpoint.address
        lines = "".join([f"{name}: {value}\r\n" for name, value in endpoint.headers])
        accept = "text/event-stream" if self.stream else "application/json"
        head = (
            f"POST {address.prefix}{SUFFIXES[self.operation]} HTTP/1.1\r\nhost: {address.authority}\r\n"
            f"content-type: application/json\r\naccept: {accept}\r\n"
            f"accept-encoding: identity\r\nuser-agent: indigo\r\nx-request-id: {self.id}\r\n{lines}"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode("latin-1") + body

    def _for(self, entry: ModelEntry, target: Target) -> bytes:
        changes: dict[str, Any] = {}
        ask = self.ask
        if target.served_name != ask.model:
            changes["model"] = target.served_name
        if self.stream:
            if ask.stream is not True:
                changes["stream"] = True
            if not ask.wants_usage:
                changes["stream_options"] = bodies.usage_option(self._body)
        if entry.single_tool_choice:
            changes.update(bodies.single_tool(self._body, ask))
        return bodies.rewritten(self._body, changes) if changes else self._body
