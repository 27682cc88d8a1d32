"""One database, SQLite or PostgreSQL, as units of work: `write()` and `read()`, each a transaction.

A unit of work is committed at the edge and rolled back on any error; nobody else commits. Where the database
cannot be had, `kernel.errors.Unavailable` is raised; other errors of SQLAlchemy pass. On SQLite one writer
takes its turn (first come, first served), readers run beside it. Not for schema changes: see `migrations`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from indigo.backends.sql import changes, postgresql, sqlite
from indigo.backends.sql.failures import is_outage, unavailable
from indigo.kernel.errors import InvalidRequest

Sessions = async_sessionmaker[AsyncSession]


ADVISORY_LOCK = 0x1D160
"""The number of this program's lock in PostgreSQL."""


class Statements:
    """The statements sent while `Database.counting` was open, in order."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    @property
    def count(self) -> int:
        return len(self.sent)


class Database:
    """See the module. Made by `Database.open`, ended by `close`."""

    def __init__(self, url: str, dialect: str, location: str, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._url = url
        self.dialect = dialect
        self.location = location
        """Where it is, without credentials: for people and logs."""
        self._engines = (writer,) if writer.pool is reader.pool else (writer, reader)
        self._listeners: list[Callable[[str], None]] = []
        self._writing: Sessions = async_sessionmaker(writer, expire_on_commit=False)
        self._reading: Sessions = async_sessionmaker(reader, expire_on_commit=False)

    @classmethod
    async def open(cls, url: str, *, pool_size: int = 10, acquire_seconds: float = 2.0) -> Database:
        """The database at `sqlite:///path` or `postgres(ql)://…`.

        A PostgreSQL server that is down is no error yet. Raises InvalidRequest for any other URL, Unavailable
        for a SQLite file that cannot be opened.
        """
        scheme = url.partition(":")[0].partition("+")[0]
        if scheme == "sqlite":
            writer, reader = await sqlite.engines(url)
            return cls(url, "sqlite", sqlite.path_of(url), writer, reader)
        if scheme in ("postgres", "postgresql"):
            writer, reader = postgresql.engines(url, pool_size=pool_size, acquire_seconds=acquire_seconds)
            return cls(url, "postgresql", postgresql.location_of(url), writer, reader)
        raise InvalidRequest(
            "DATABASE_URL should be postgresql://user:password@host/name or sqlite:///path.",
            code="invalid_setting",
        )

    async def close(self) -> None:
        for engine in self._engines:
            await engine.dispose()

    def write(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A unit of work that may change things. On SQLite it waits its turn: do not nest, do not dawdle."""
        return _unit_of_work(self._writing, self._tell)

    def read(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A unit of work on one consistent snapshot; the engine refuses writes in it."""
        return _unit_of_work(self._reading, self._tell)

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Have `listener` called with each topic that a unit of work of this process `changes.bump`ed."""
        self._listeners.append(listener)

    def _tell(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for listener in self._listeners:
                listener(topic)

    @asynccontextmanager
    async def exclusive(self) -> AsyncGenerator[AsyncSession]:
        """A unit of work that one process at a time can be in, the others wait; without time-outs.

        For schema changes. Its holder's death lets the next one in.
        """
        if self.dialect == "sqlite":
            async with sqlite.locked(self.location), self.write() as session:
                yield session
            return
        engine = postgresql.patient_engine(self._url)
        try:
            async with _unit_of_work(async_sessionmaker(engine, expire_on_commit=False), self._tell) as session:
                await session.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
                yield session
        finally:
            await engine.dispose()

    async def ping(self) -> None:
        """Raises Unavailable when the database does not answer."""
        async with self.read() as session:
            await session.execute(text("SELECT 1"))

    @contextmanager
    def counting(self) -> Generator[Statements]:
        """Records every statement sent meanwhile, for tests that promise how many there are."""
        statements = Statements()

        def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if not statement.startswith("BEGIN"):
                statements.sent.append(statement)

        for engine in self._engines:
            event.listen(engine.sync_engine, "before_cursor_execute", record)
        try:
            yield statements
        finally:
            for engine in self._engines:
                event.remove(engine.sync_engine, "before_cursor_execute", record)


@asynccontextmanager
async def _unit_of_work(sessions: Sessions, tell: Callable[[Iterable[str]], None]) -> AsyncGenerator[AsyncSession]:
    session = sessions()
    try:
        await _begin(session)
        yield session
        await session.commit()
        tell(session.info.get(changes.CHANGED, ()))
    except SQLAlchemyError as error:
        if is_outage(error):
            raise unavailable(error) from error
        raise
    finally:
        await _end(session)


async def _begin(session: AsyncSession) -> None:
    """Take the connection now, so that a refused socket is told from an OSError of the caller's own."""
    try:
        await session.connection()
    except (OSError, TimeoutError) as error:
        raise unavailable(error) from error
    except Exception as error:
        if is_outage(error):
            raise unavailable(error) from error
        raise


async def _end(session: AsyncSession) -> None:
    """Roll back what was not committed. A connection that broke meanwhile has nothing to roll back."""
    try:
        await session.close()
    except (SQLAlchemyError, OSError) as error:
        if isinstance(error, SQLAlchemyError) and not is_outage(error):
            raise
