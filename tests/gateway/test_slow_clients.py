"""Clients that do not read, and more clients than there are file descriptors."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from indigo.gateway.server import Patience
from tests.support.ports import World
from tests.support.raw import chat, connected, request
from tests.support.waiting import until
from tests.support.wall import DONE, END, Wall, chunk, event, head

PIECE = chunk(event("x" * 16_000))
MANY = 4_000
STREAM = (head(), *[PIECE] * MANY, chunk(event(finish="stop")) + chunk(DONE) + END)


def narrow(port: int) -> socket.socket:
    """A client with a small receive buffer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


def paused(world: World) -> bool:
    connections: set[Any] = set(world.server.server_state.connections)
    return any(connection.paused_since for connection in connections)


def memory() -> int:
    """Bytes this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.threat("T91")
@pytest.mark.parametrize("behind", [0, 1], ids=["alone", "with another request behind it"])
async def test_a_client_that_stops_reading_stops_the_endpoint_and_is_cut_off(behind: int) -> None:
    world = World(patience=Patience(stalled=1.0))
    async with Wall(*STREAM).serving() as wall, world.serving():
        (endpoint,) = world.model("m", wall.url)
        before = memory()
        client = narrow(world.port)
        client.send(request(chat(stream=True)) + request() * behind)
        await until(lambda: paused(world))
        assert memory() - before < 24 * 2**20  # of 64 MiB that the endpoint would send
        assert world.limits.in_flight == 1
        await until(lambda: world.limits.in_flight == 0, seconds=5)
        await until(lambda: wall.open == 0, seconds=1)
        assert world.sink.events[0].outcome == "client_closed"
        assert world.sink.events[0].completion_tokens < MANY
        assert endpoint.in_flight == 0
        client.close()


@pytest.mark.threat("T91")
async def test_a_client_that_reads_slowly_gets_everything() -> None:
    world = World(patience=Patience(stalled=5.0))
    async with Wall(head(), *[PIECE] * 300, *STREAM[-1:]).serving() as wall, world.serving():
        world.model("m", wall.url)
        async with connected(world.port, limit=8192) as client:
            client.send(request(chat(stream=True)))
            size = 0
            while data := await client.reader.read(65_536):
                size += len(data)
                await asyncio.sleep(0.001)
                if data.endswith(b"0\r\n\r\n"):
                    break
        assert size > 300 * 16_000
        await until(lambda: world.limits.in_flight == 0)
        assert world.sink.events[0].outcome == "completed"
        assert wall.connections == 1


@pytest.mark.threat("T91")
async def test_a_client_that_never_reads_its_last_answer_is_let_go() -> None:
    world = World(patience=Patience(keep_alive=0.4))
    async with Wall(head(), *[PIECE] * 8, *STREAM[-1:]).serving() as wall, world.serving():
        world.model("m", wall.url)
        client = narrow(world.port)
        client.send(request(chat(stream=True), headers="connection: close\r\n"))
        await until(lambda: len(world.sink.events) == 1)
        await until(lambda: not world.server.server_state.connections, seconds=4)
        client.close()


@pytest.mark.threat("T92")
def test_a_server_out_of_file_descriptors_recovers() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", CROWDED], capture_output=True, text=True, timeout=60, cwd=root)
    assert int(done.stdout.split()[0]) < 150, done.stdout + done.stderr
    assert done.stdout.strip().endswith("200"), done.stdout + done.stderr


CROWDED = '''
import asyncio, resource, socket, sys
import uvloop
from tests.support.ports import World
from tests.support.raw import ask
from tests.support.wall import Wall

async def main():
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        assert (await ask(world.port)).status == 200
        soft = len(__import__("os").listdir("/proc/self/fd")) + 100
        arguments = (sys.executable, "-c", CLIENTS, str(world.port))
        crowd = await asyncio.create_subprocess_exec(*arguments, stdout=-1, stdin=-1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        await crowd.stdout.readline()
        await asyncio.sleep(0.5)
        print(len(world.server.server_state.connections), "connected")
        crowd.stdin.close()
        await crowd.wait()
        for _ in range(100):
            try:
                async with asyncio.timeout(1):
                    print((await ask(world.port)).status)
                    return
            except (OSError, EOFError):
                await asyncio.sleep(0.05)

CLIENTS = """
import socket, sys
clients = [socket.socket() for _ in range(400)]
for client in clients:
    client.setblocking(False)
    client.connect_ex(("127.0.0.1", int(sys.argv[1])))
print("here", flush=True)
sys.stdin.read()
"""

uvloop.run(main())
'''
