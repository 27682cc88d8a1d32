"""What the settings start, end to end."""

from __future__ import annotations

import socket
import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from indigo.engines.demo import model
from indigo.engines.launch import Engines, launch
from indigo.gateway import operations
from indigo.kernel.clock import SystemClock
from indigo.kernel.errors import InvalidRequest
from indigo.kernel.settings import Settings
from indigo.kernel.tasks import Tasks
from tests.engines.fake_hub import FakeHub
from tests.engines.llama_client import QUICK, ask

STANDIN = f"{sys.executable} {Path(__file__).with_name('standin_vllm.py')}"
MESSAGES = [{"role": "user", "content": "Hello"}]


@asynccontextmanager
async def launched(data_dir: Path, hub: str | None = None, **settings: Any) -> AsyncGenerator[Engines]:
    tasks = Tasks()
    engines = await launch(Settings(data_dir=data_dir, **settings), tasks, SystemClock(), QUICK, hub)
    try:
        yield engines
    finally:
        await engines.stop()
        await tasks.cancel()


def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def test_the_demonstration_offers_chat_and_embeddings(tmp_path: Path) -> None:
    async with launched(tmp_path, model="demo") as engines:
        assert await engines.wait_ready(10)
        chat, embedding = engines.offers
        [one], [other] = chat.models, embedding.models
        assert (one.id, other.id) == ("indigo-demo", "indigo-demo-embedding")
        assert one.operations == {operations.CHAT, operations.COMPLETIONS}
        assert other.operations == {operations.EMBEDDINGS}
        assert one.single_tool_choice
        assert one.context_length == model.CONTEXT_LENGTH
        status, body = await ask(chat.base_url, "/v1/chat/completions", {"messages": MESSAGES})
        assert (status, body["model"]) == (200, one.served_name)
        status, body = await ask(embedding.base_url, "/v1/embeddings", {"input": "hello"})
        assert (status, body["model"]) == (200, other.served_name)
        assert [state.state for state in engines.states()] == ["ready", "ready"]


async def test_the_sockets_are_for_this_user_only(tmp_path: Path) -> None:
    async with launched(tmp_path, model="demo", embedding_model="none") as engines:
        [offer] = engines.offers
        folder = Path(offer.base_url.removeprefix("unix:")).parent
        assert folder.is_relative_to(tmp_path)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_long_data_folder_gets_a_short_private_one_for_its_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    async with launched(deep, model="demo", embedding_model="none") as engines:
        assert await engines.wait_ready(10)
        path = Path(engines.offers[0].base_url.removeprefix("unix:"))
        assert len(str(path)) < 104
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.parent.exists()


async def test_without_a_hub_the_demonstration_answers_and_a_notice_says_so(tmp_path: Path) -> None:
    async with launched(tmp_path, hub=nobody()) as engines:
        [notice] = engines.notices
        assert "cannot be reached" in notice
        assert "indigo-demo answers instead" in notice
        assert [offer.models[0].id for offer in engines.offers] == ["indigo-demo", "indigo-demo-embedding"]
        assert await engines.wait_ready(10)


async def test_a_model_of_the_hub_is_fetched_and_served(tmp_path: Path) -> None:
    model.write_chat(tmp_path / "tiny")
    with FakeHub({"tiny-q4_k_m.gguf": (tmp_path / "tiny").read_bytes()}).running() as hub:
        async with launched(tmp_path, hub=hub.endpoint, model="hf:owner/repo") as engines:
            assert engines.notices == []
            assert await engines.wait_ready(10)
            [offer] = engines.offers
            assert offer.models[0].id == "tiny-q4_k_m"
        with pytest.raises(InvalidRequest, match="has no file"):
            async with launched(tmp_path, hub=hub.endpoint, model="hf:owner/repo:x.gguf"):
                pass


async def test_the_kind_of_a_file_s_model_is_read_from_it(tmp_path: Path) -> None:
    model.write_embedding(tmp_path / "bag.gguf")
    async with launched(tmp_path, model=str(tmp_path / "bag.gguf")) as engines:
        assert await engines.wait_ready(10)
        [offer] = engines.offers
        assert offer.models[0].operations == {operations.EMBEDDINGS}
        assert offer.models[0].id == "bag"


async def test_an_unusable_file_does_not_stop_the_start_but_is_reported(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.gguf"
    foreign.write_bytes(b"PK\x03\x04" * 4096)
    async with launched(tmp_path, model=str(foreign)) as engines:
        assert not await engines.wait_ready(10)
        [state] = engines.states()
        assert state.state == "failed"
        assert "foreign.gguf" in state.reason


async def test_a_file_that_does_not_exist_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"missing\.gguf does not exist"):
        async with launched(tmp_path, model=str(tmp_path / "missing.gguf")):
            pass


async def test_vllm_is_offered_with_its_key(tmp_path: Path) -> None:
    settings = {
        "engine": "vllm",
        "model": "hf:owner/model",
        "vllm_served_name": "mine",
        "vllm_command": STANDIN,
    }
    async with launched(tmp_path, **settings) as engines:
        assert await engines.wait_ready(10)
        [offer] = engines.offers
        assert offer.models[0].id == "mine"
        assert offer.headers["Authorization"].startswith("Bearer ")
        assert offer.headers["Authorization"] not in repr(offer)


async def test_the_mock_is_offered_on_a_socket(tmp_path: Path) -> None:
    async with launched(tmp_path, engine="mock") as engines:
        [offer] = engines.offers
        assert "mock-fault-500" in {model.id for model in offer.models}
        status, body = await ask(offer.base_url, "/v1/chat/completions", {"model": "mock", "messages": MESSAGES})
        assert status == 200
        assert body["choices"][0]["message"]["content"].startswith("Hello")


async def test_none_starts_nothing(tmp_path: Path) -> None:
    async with launched(tmp_path, model="none") as engines:
        assert engines.offers == []
        assert await engines.wait_ready(1)


@pytest.mark.parametrize("settings", [{"engine": "tgi"}, {"model": "hf:nonsense"}])
async def test_settings_that_make_no_sense_are_refused(tmp_path: Path, settings: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        async with launched(tmp_path, **settings):
            pass
