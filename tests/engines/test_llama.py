"""The llama.cpp child: its crashes, hangs and refusals, with the real engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from indigo.engines.demo import model, sentences
from indigo.engines.llama import engine, memory, model_file
from indigo.engines.llama.config import ChildConfig
from indigo.engines.supervisor import Child, Supervisor
from tests.engines.llama_client import ask, supervised, until

QUESTION = {"messages": [{"role": "user", "content": "Hello"}]}


def llama(folder: Path, *, path: Path | None = None, demo: bool = True) -> Child:
    config = ChildConfig(
        path=str(path or folder / "demo.gguf"),
        socket=str(folder / "llama.sock"),
        alias=model.CHAT_ID,
        kind="chat",
        parent=os.getpid(),
        demo=demo,
        threads=1,
    )
    return engine.child(config)


async def answers(supervisor: Supervisor, folder: Path) -> None:
    await until(supervisor, lambda state: state.state == "ready")
    status, body = await ask(f"unix:{folder}/llama.sock", "/v1/chat/completions", QUESTION)
    assert status == 200
    assert body["model"] == model.CHAT_ID
    assert body["choices"][0]["message"]["content"] == sentences.ANSWER


@pytest.mark.threat("F23")
async def test_a_killed_engine_is_started_again_and_answers(tmp_path: Path) -> None:
    async with supervised(llama(tmp_path)) as supervisor:
        await answers(supervisor, tmp_path)
        pid = supervisor.state.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        state = await until(supervisor, lambda state: state.state == "restarting")
        assert state.reason == "It was ended by SIGKILL."
        assert Path(tmp_path, "llama.sock").exists()  # stale: the next start has to remove it
        await answers(supervisor, tmp_path)
        assert supervisor.state.pid != pid
        assert supervisor.state.restarts == 1


@pytest.mark.threat("F23")
async def test_a_hanging_engine_is_killed_and_started_again(tmp_path: Path) -> None:
    async with supervised(llama(tmp_path)) as supervisor:
        await answers(supervisor, tmp_path)
        pid = supervisor.state.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        state = await until(supervisor, lambda state: state.state == "restarting")
        assert "not answered" in state.reason
        await answers(supervisor, tmp_path)


async def test_stopping_ends_the_engine(tmp_path: Path) -> None:
    async with supervised(llama(tmp_path)) as supervisor:
        await answers(supervisor, tmp_path)
        pid = supervisor.state.pid
        assert pid is not None
    assert supervisor.state.state == "stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_engine_dies_with_its_parent(tmp_path: Path) -> None:
    child = llama(tmp_path)
    script = f"""
import os, subprocess, time
child = subprocess.Popen({list(child.command)!r}, stdin=subprocess.PIPE)
config = {child.stdin!r}.replace(b'"parent":{os.getpid()}', b'"parent":%d' % os.getpid())
child.stdin.write(config); child.stdin.flush()
print(child.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        _wait(lambda: Path(tmp_path, "llama.sock").exists())
        parent.kill()
    _wait(lambda: not _lives(pid))


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("demo") / "demo.gguf"
    model.write_chat(path)
    return path.read_bytes()


FILES: dict[str, Callable[[bytes], bytes | None]] = {
    "does not exist": lambda whole: None,
    "is not a GGUF file: it is empty": lambda whole: b"",
    "looks like a zip archive": lambda whole: b"PK\x03\x04" + bytes(100),
    "looks like a web page": lambda whole: b"<!DOCTYPE html>",
    "has GGUF version 99": lambda whole: b"GGUF" + b"\x63\0\0\0" + bytes(100),
    "ends within its header": lambda whole: whole[:20],
    "is truncated: it ends": lambda whole: whole[:9000],
    "is truncated: it has 400,000 of at least": lambda whole: whole[:400_000],
    "is truncated": lambda whole: whole[:-1],
}


@pytest.mark.threat("F23")
@pytest.mark.parametrize("reason", FILES)
async def test_a_file_that_cannot_be_loaded_is_reported_once(tmp_path: Path, whole: bytes, reason: str) -> None:
    content = FILES[reason](whole)
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    async with supervised(llama(tmp_path, path=path, demo=False)) as supervisor:
        state = await supervisor.settled()
        assert state.state == "failed"
        assert reason in state.reason
        assert str(path) in state.reason
        assert state.restarts == 0


async def test_a_model_of_an_unknown_architecture_is_reported_once(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(whole.replace(b"llama", b"lllll", 1))
    async with supervised(llama(tmp_path, path=path, demo=False)) as supervisor:
        state = await supervisor.settled()
        assert state.state == "failed"
        assert "does not know this model's architecture" in state.reason


async def test_a_file_that_vanishes_fails_the_restart_with_its_cause(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(whole)
    async with supervised(llama(tmp_path, path=path, demo=False)) as supervisor:
        await answers(supervisor, tmp_path)
        path.unlink()
        pid = supervisor.state.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        state = await until(supervisor, lambda state: state.state == "failed")
        assert "does not exist" in state.reason


def test_the_table_of_tensor_types_is_the_library_s() -> None:
    assert {kind.value: size for kind, size in gguf.GGML_QUANT_SIZES.items()} == model_file.BLOCKS


def test_too_little_memory_is_said_with_both_figures() -> None:
    memory.require(Path("m.gguf"), 100, None)
    memory.require(Path("m.gguf"), 100, 100)
    with pytest.raises(model_file.Unusable, match="needs about 300 MiB and 200 MiB are free"):
        memory.require(Path("m.gguf"), 300 << 20, 200 << 20)


def test_the_container_s_limit_counts_where_it_is_lower(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    1000 kB\n")
    assert memory.available(meminfo, tmp_path) == 1000 * 1024
    (tmp_path / "memory.max").write_text("500000\n")
    (tmp_path / "memory.current").write_text("300000\n")
    (tmp_path / "memory.stat").write_text("anon 200000\ninactive_file 100000\n")
    assert memory.available(meminfo, tmp_path) == 300_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available(meminfo, tmp_path) == 1000 * 1024
    assert memory.available(tmp_path / "none", tmp_path / "none") is None


def test_the_memory_a_model_needs_grows_with_the_context(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(whole)
    header = model_file.read(path)
    assert header.context_length == model.CONTEXT_LENGTH
    one_token = 2 * model.HEAD_WIDTH * 2
    assert header.memory(1000) - header.memory(0) == 1000 * one_token
    assert header.memory(0) > len(whole)
