"""The product as its users start it: `indigo serve` in a process of its own, on a port and a data folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy import text

from indigo.backends.sql.database import Database
from indigo.kernel import settings
from tests.support.databases import ENGINES, PostgresqlServer, create_database, drop_database
from tests.support.openapi import AsyncRecordingTransport, Recorder, RecordingTransport

INDIGO = Path(sys.executable).with_name("indigo")
READY_SECONDS = 60.0
CHAT = "indigo-demo"
EMBEDDING = "indigo-demo-embedding"
FIGURE = "figure"
"""The name of a test's property that is printed at the end of the run."""


def wait_for(condition: Callable[[], Any], seconds: float = 20.0, what: Callable[[], str] = lambda: "") -> Any:
    """What `condition` gives once it is true; AssertionError after `seconds`, saying `what`."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"it did not happen in {seconds} s. {what()}"
        time.sleep(0.01)


@dataclass(frozen=True)
class Printed:
    """The lines that only the first start prints."""

    admin_email: str
    admin_password: str | None
    project_key: str
    admin_key: str
    curl: str


def environment(**given: str) -> dict[str, str]:
    """This process's environment without Indigo's settings, and with `given`."""
    ours = {name for field in settings.fields() for name in (field.metadata["env"], *field.metadata["aliases"])}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return {**inherited, "PYTHONUNBUFFERED": "1", **given}


class Product:
    """One installation: a data folder, a database, and the server that runs on them from time to time."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        database_url: str = "",
        env: Mapping[str, str] | None = None,
        model: str = "demo",
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.database_url = database_url
        self._arguments = ["--port", "0", "--data-dir", str(self.data_dir), "--model", model, *arguments]
        self._env = {**({"DATABASE_URL": database_url} if database_url else {}), **(env or {})}
        self._starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.printed: Printed | None = None
        self.base_url = ""
        self.ready_after = 0.0

    def start(self, *, wait: bool = True) -> Product:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._starts += 1
        began = time.monotonic()
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            self.process = subprocess.Popen(
                [str(INDIGO), "serve", *self._arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=environment(**self._env), cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        if wait:
            self.wait_ready(began)
        return self

    def wait_ready(self, began: float | None = None) -> None:
        """Until it has said where it is and `/readyz` answers 200."""
        began = time.monotonic() if began is None else began
        wait_for(self._announced, READY_SECONDS, self.logs)
        wait_for(lambda: self.get("/readyz").status_code == 200, READY_SECONDS, self.logs)
        self.ready_after = time.monotonic() - began

    def _announced(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended with {self.process.returncode}\n{self.logs()}"
        said = self.output()
        found = re.search(r"^ +API +(\S+)/v1$.*\n\n(?!\n*First start)", said, re.MULTILINE | re.DOTALL)
        if found is None or ("First start" in said and "Try it" in said and not re.search(r"^curl .*\n", said, re.M)):
            return False
        self.base_url = found[1]
        self.printed = _printed(said) or self.printed
        return True

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.{self._starts}.txt"

    def output(self) -> str:
        """What the running, or last, start has printed."""
        return self._file("out").read_text()

    def logs(self) -> str:
        return f"{self.output()}\n{self._file('err').read_text()}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def key(self) -> str:
        assert self.printed is not None
        return self.printed.project_key

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return httpx2.get(self.base_url + path, timeout=10, verify=False, **options)

    def admitted(self) -> int:
        """How many requests this start has admitted, by its own metrics."""
        found = re.findall(r"^indigo_requests_total\{.*\} (\S+)$", self.get("/metrics").text, re.MULTILINE)
        return sum(int(float(count)) for count in found)

    def children(self) -> list[int]:
        """The processes that the server has started and that run."""
        found: list[int] = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                state, parent = (folder / "stat").read_text().rpartition(") ")[2].split()[:2]
                if int(parent) == self.pid and state != "Z":
                    found.append(int(folder.name))
        return found

    def stop(self, seconds: float = 45.0) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def interrupt(self) -> None:
        """What Ctrl-C in a terminal does: SIGINT to the server and to all that it has started."""
        os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        """However it stands: it ends."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()

    def client(self, recorder: Recorder, **options: Any) -> openai.OpenAI:
        http = httpx2.Client(transport=RecordingTransport(recorder), timeout=60)
        recorder.at_end.callback(http.close)
        given: dict[str, Any] = {"api_key": self.key, "max_retries": 0, **options}
        return openai.OpenAI(base_url=f"{self.base_url}/v1", http_client=http, **given)

    def async_client(self, recorder: Recorder | None = None, **options: Any) -> openai.AsyncOpenAI:
        """To be used in `async with`. Without a recorder for streams of thousands of events."""
        limits = httpx2.Limits(max_connections=None)
        transport = AsyncRecordingTransport(recorder, limits=limits) if recorder else None
        http = httpx2.AsyncClient(transport=transport, limits=limits, timeout=60)
        given: dict[str, Any] = {"api_key": self.key, "max_retries": 0, **options}
        return openai.AsyncOpenAI(base_url=f"{self.base_url}/v1", http_client=http, **given)

    async def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        """What its database holds, seen from outside."""
        database = await Database.open(self.database_url or f"sqlite:///{self.data_dir / 'indigo.db'}")
        try:
            async with database.read() as session:
                return [dict(row) for row in (await session.execute(text(statement), values)).mappings()]
        finally:
            await database.close()

    async def usage(self) -> list[dict[str, Any]]:
        return await self.rows("SELECT * FROM usage_events ORDER BY id")


def _printed(said: str) -> Printed | None:
    if "First start" not in said:
        return None
    fields = dict(re.findall(r"^ +(Admin e-mail|Admin password|Project key|Admin key) +(\S+)$", said, re.MULTILINE))
    curl = re.search(r"^curl .*$", said, re.MULTILINE)
    return Printed(
        fields["Admin e-mail"],
        fields.get("Admin password"),
        fields["Project key"],
        fields["Admin key"],
        curl[0] if curl else "",
    )


Starter = Callable[..., Product]


@pytest.fixture(scope="session", params=ENGINES)
def product(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A running installation with the demonstration models, for all tests that leave it as it is."""
    folder = tmp_path_factory.mktemp(f"product-{request.param}")
    with contextlib.ExitStack() as stack:
        url = ""
        if request.param == "postgresql":
            server: PostgresqlServer = request.getfixturevalue("postgresql_server")
            name = create_database(server, "template1")
            stack.callback(drop_database, server, name)
            url = server.url(name)
        made = Product(folder, database_url=url)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(made.close)
        yield made.start()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Sees what the test's SDK clients get; the test fails if an answer was not as OpenAI describes it."""
    made = Recorder()
    with made.at_end:
        yield made
    made.check()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts installations that the test may do anything to."""
    made: list[Product] = []

    def starter(*arguments: str, wait: bool = True, **options: Any) -> Product:
        product = Product(tmp_path / f"product-{len(made)}", *arguments, **options)
        made.append(product)
        return product.start(wait=wait)

    yield starter
    for product in made:
        product.close()


Upstream = tuple[subprocess.Popen[bytes], str]


@pytest.fixture
def upstreams() -> Iterator[Callable[..., Upstream]]:
    """Starts `indigo mock-upstream` processes; gives each with its base URL."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> Upstream:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [str(INDIGO), "mock-upstream", "--port", str(port), *options],
            stdout=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
        running.append(process)
        wait_for(lambda: _listens(port))
        return process, f"http://127.0.0.1:{port}/v1"

    yield start
    for process in running:
        process.kill()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures that tests have measured."""
    figures = {
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == FIGURE
    }
    for figure in sorted(figures):
        terminalreporter.write_line(f"measured: {figure}")
