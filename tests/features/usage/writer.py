"""A process to be killed: it journals requests under argv[1] and says of each when it is closed or opened.

With an address in argv[2] it delivers them to that database meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from indigo.backends.sql.database import Database
from indigo.gateway.ports import Progress
from indigo.kernel.ids import EventIds
from tests.support.usage import Books, admission, event


async def main(root: Path, url: str | None) -> None:
    database = await Database.open(url or f"sqlite:///{root}/unused.db")
    books = Books(database, root)
    if url:
        books.start()
    ids = EventIds()
    while True:
        for _ in range(20):
            await request(books, ids.next())
        left_open = ids.next()
        books.journal.opened(admission(left_open))
        books.journal.progressed(Progress(left_open, 3, "local/0"))
        books.journal.progressed(Progress(left_open, 4, "local/0"))
        print("opened", left_open, flush=True)
        await asyncio.sleep(0.001)


async def request(books: Books, id: str) -> None:
    books.journal.opened(admission(id))
    books.journal.progressed(Progress(id, 2, "local/0"))
    books.journal.closed(event(id))
    print("closed", id, flush=True)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
