"""Logging: text for people or JSON lines for machines, without secrets, and never in anyone's way.

`start` is called once by a process. Records are formatted where they arise (so that arguments cannot change
later), redacted, and written by a thread of their own behind a bounded queue: a sink that blocks costs lines,
which are counted, but never a request. Not for metrics or for the usage of requests.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import re
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from indigo.kernel.errors import IndigoError, InvalidRequest

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FORMATS = ("text", "json")
QUIET = ("alembic", "asyncio", "uvicorn.error")
"""Loggers that tell at `info` what nobody who runs a server asked for."""
QUEUE_SIZE = 10_000
STOP_SECONDS = 2.0

request_id_var: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that is being served, in the context of its task."""

_SECRETS = re.compile(
    r"(?P<keep>(?:authorization|x-api-key|api-key|cookie)[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?)[^\s\"',;]+"
    r"|(?P<bearer>bearer\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|(?P<url>://[^\s:/@]{1,64}:)[^\s@/]{1,256}(?=@)"
    r"|\b(?P<kind>sk-(?:[a-z]{2,12}-)?)[0-9A-Za-z_-]{16,}",
    re.IGNORECASE,
)
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    0x09: "\\t",
    0x0A: "\\n",
    0x0D: "\\r",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def redacted(text: str) -> str:
    """`text` with credentials replaced: header values, bearer tokens, API keys, passwords in URLs."""
    return _SECRETS.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    return next((kept for kept in found.groups() if kept), "") + "[redacted]"


def escaped(text: str) -> str:
    """`text` on one line: line breaks and control characters of a client's text cannot forge log lines."""
    return text.translate(_CONTROLS)


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and where known request_id, code, exception."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
            "request_id": request_id_var.get(),
            "code": _code(record),
            "exception": _exception(record),
        }
        return json.dumps({name: value for name, value in entry.items() if value is not None})


class TextFormatter(logging.Formatter):
    """One line for people, with an exception's traceback indented below it."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {escaped(redacted(record.getMessage()))}"
        for name, value in (("code", _code(record)), ("request_id", request_id_var.get())):
            if value is not None:
                line += f" {name}={value}"
        if (exception := _exception(record)) is not None:
            line += "".join(f"\n    {escaped(part)}" for part in exception.splitlines())
        return line


class DroppingQueueHandler(logging.Handler):
    """Formats and hands over without ever waiting; `dropped` counts what did not fit."""

    def __init__(self, lines: queue.Queue[logging.LogRecord]) -> None:
        super().__init__()
        self._lines = lines
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except (TypeError, ValueError):
            line = f"a log line could not be formatted: {record.name} line {record.lineno}"
        try:
            self._lines.put_nowait(logging.makeLogRecord({"msg": line, "levelno": record.levelno}))
        except queue.Full:
            self.dropped += 1


class Logs:
    """What `start` set up: `dropped` for the metrics, `stop` for the end of the process."""

    def __init__(self, handler: DroppingQueueHandler, listener: _Listener) -> None:
        self._handler = handler
        self._listener = listener

    @property
    def dropped(self) -> int:
        """Lines lost because the sink was too slow."""
        return self._handler.dropped

    def stop(self) -> None:
        """Write what is queued, for a few seconds at the most, and put Python's own logging back."""
        logging.getLogger().removeHandler(self._handler)
        self._listener.finish()


class _Listener(logging.handlers.QueueListener):
    def __init__(self, lines: queue.Queue[Any], handler: logging.Handler) -> None:
        super().__init__(lines, handler)
        self._lines = lines

    def finish(self) -> None:
        """As `stop`, but a sink that blocks for ever does not keep the process."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            self._lines.put(None, timeout=STOP_SECONDS)
        except queue.Full:
            return
        thread.join(STOP_SECONDS)


def start(level: str, format: str, sink: TextIO | None = None, queue_size: int = QUEUE_SIZE) -> Logs:
    """Send every logger's records to `sink` (standard error if None).

    Raises InvalidRequest for an unknown level or format.
    """
    if level.lower() not in LEVELS:
        raise InvalidRequest(f"LOG_LEVEL={level!r} should be one of {', '.join(LEVELS)}.", code="invalid_setting")
    if format.lower() not in FORMATS:
        raise InvalidRequest(f"LOG_FORMAT={format!r} should be text or json.", code="invalid_setting")
    lines: queue.Queue[logging.LogRecord] = queue.Queue(queue_size)
    handler = DroppingQueueHandler(lines)
    handler.setFormatter(JsonFormatter() if format.lower() == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level.lower()])
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in QUIET:
        logging.getLogger(name).setLevel(max(LEVELS[level.lower()], logging.WARNING))
    listener = _Listener(lines, logging.StreamHandler(sink if sink is not None else sys.stderr))
    listener.start()
    return Logs(handler, listener)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _code(record: logging.LogRecord) -> str | None:
    error = record.exc_info[1] if record.exc_info else None
    return getattr(record, "code", None) or (error.code if isinstance(error, IndigoError) else None)


def _exception(record: logging.LogRecord) -> str | None:
    if not record.exc_info or record.exc_info[0] is None:
        return None
    return redacted("".join(traceback.format_exception(*record.exc_info)).rstrip())
