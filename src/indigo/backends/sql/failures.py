"""Tells "the database cannot be had now" (Unavailable) from errors of our own making, which pass."""

from __future__ import annotations

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from indigo.kernel.errors import Unavailable

SQLITE_TRANSIENT = frozenset({5, 6, 8, 10, 13, 14, 15})
"""SQLITE_BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL: the primary result codes that may pass."""

POSTGRESQL_TRANSIENT = ("08", "53", "57", "40", "55P03", "58", "25006")
"""SQLSTATE prefixes: connection, resources, shutdown, time-outs, serialization, I/O, read-only."""


def unavailable(cause: BaseException) -> Unavailable:
    """The error for callers; `cause` is for the log, its text may hold an address."""
    error = Unavailable(
        "The database cannot be reached now. Try again shortly.", code="database_unavailable", retry_after=1
    )
    error.__cause__ = cause
    return error


def is_outage(error: BaseException) -> bool:
    """Whether `error`, raised by a statement or a commit, says that the database is away, full or busy."""
    if isinstance(error, (PoolTimeout, TimeoutError)):
        return True
    if not isinstance(error, DBAPIError):
        return _driver_outage(error)
    if error.connection_invalidated:
        return True
    return any(_driver_outage(cause) for cause in _causes(error))


def _causes(error: DBAPIError) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error.orig
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__
    return found


def _driver_outage(cause: BaseException) -> bool:
    code = getattr(cause, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code & 0xFF in SQLITE_TRANSIENT
    state = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        return state.startswith(POSTGRESQL_TRANSIENT)
    return isinstance(cause, (ConnectionError, asyncpg.InterfaceError))
