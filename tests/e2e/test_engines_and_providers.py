"""Models that come from elsewhere: a vLLM that the product runs, and providers that a file names."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.engines import standin_vllm
from tests.support.openapi import Recorder
from tests.support.product import Product, Starter, Upstream, wait_for

HELLO: Any = [{"role": "user", "content": "Hello!"}]
VLLM = f"{sys.executable} {standin_vllm.__file__}"


@pytest.mark.promise("P53")
def test_vllm_is_run_asked_and_replaced_when_it_is_killed(start: Starter, recorder: Recorder) -> None:
    product = start("--engine", "vllm", model="hf:some/model", env={"INDIGO_VLLM_COMMAND": VLLM})
    client = product.client(recorder)
    assert [model.id for model in client.models.list()] == ["some/model"]
    assert client.models.retrieve("some/model").id == "some/model"
    assert chat(client, "some/model") == "hi"
    streamed = client.chat.completions.create(model="some/model", messages=HELLO, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "hi"
    [vllm] = product.children()
    os.kill(vllm, signal.SIGKILL)
    wait_for(lambda: product.children() not in ([vllm], []), what=product.logs)
    assert wait_for(lambda: chat_if_up(client, "some/model"), what=product.logs) == "hi"
    assert product.stop() == 0
    recorder.check(answers=4, events=2)


@pytest.mark.promise("P54")
def test_the_mock_engine_answers_for_development(start: Starter, recorder: Recorder) -> None:
    product = start("--engine", "mock")
    client = product.client(recorder)
    assert (chat(client, "mock") or "").startswith("Hello!")
    with pytest.raises(openai.APIStatusError):
        chat(client, "mock-fault-500")
    recorder.check(answers=2)


def chat(client: openai.OpenAI, model: str) -> str | None:
    return client.chat.completions.create(model=model, messages=HELLO).choices[0].message.content


def chat_if_up(client: openai.OpenAI, model: str) -> str | None:
    try:
        return chat(client, model)
    except (openai.InternalServerError, openai.APIConnectionError):
        return None


def providers(*urls: str, models: tuple[str, ...] = ("mock",)) -> str:
    endpoints = "".join(f"      - base_url: {url}\n" for url in urls)
    offered = "".join(f"      - id: {model}\n        capabilities: [chat]\n" for model in models)
    return (
        'providers:\n  - name: two\n    kind: openai\n    headers:\n      Authorization: "Bearer ${UPSTREAM_KEY}"\n'
        f"    endpoints:\n{endpoints}    models:\n{offered}"
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "providers.yaml"


def serving(start: Starter, file: Path, text: str) -> Product:
    file.write_text(text)
    return start("--providers", str(file), model="none", env={"UPSTREAM_KEY": "k", "INDIGO_PROBE_SECONDS": "0.5"})


@pytest.mark.promise("P50", "P51", "P52")
async def test_an_endpoint_that_is_killed_under_load_fails_no_request(
    start: Starter, upstreams: Callable[..., Upstream], file: Path, recorder: Recorder
) -> None:
    (victim, first), (_, second) = (upstreams("--first-byte", "0.01") for _ in range(2))
    product = serving(start, file, providers(first, second))
    asked = 0

    async with product.async_client(recorder) as client:

        async def load() -> None:
            nonlocal asked
            while asked < 400:
                asked += 1
                if asked == 150:
                    victim.kill()
                answer = await client.chat.completions.create(model="mock", messages=HELLO)
                assert (answer.choices[0].message.content or "").startswith("Hello!")

        await asyncio.gather(*(load() for _ in range(8)))
    recorder.check(answers=400)
    assert product.stop() == 0
    rows = await product.usage()
    assert Counter(row["outcome"] for row in rows) == {"completed": len(rows)}
    assert len(rows) == recorder.answers
    shares = Counter(row["endpoint"] for row in rows)
    assert len(shares) == 2, "the load was shared"
    assert min(shares.values()) > 30
    assert max(row["attempts"] for row in rows) > 1, "a request that met the dead endpoint went on to the other"


@pytest.mark.promise("P50", "P51")
def test_the_providers_file_is_followed_while_the_server_runs(
    start: Starter, upstreams: Callable[..., Upstream], file: Path, recorder: Recorder
) -> None:
    _, url = upstreams()
    product = serving(start, file, providers(url))
    client = product.client(recorder)

    def offered() -> set[str]:
        return {model.id for model in client.models.list()}

    assert offered() == {"mock"}
    file.write_text(providers(url, models=("mock", "another")))
    wait_for(lambda: offered() == {"mock", "another"}, what=product.logs)
    assert (chat(client, "another") or "").startswith("Hello!")

    file.write_text("providers: [{name: broken")
    time.sleep(0.05)
    assert offered() == {"mock", "another"}, "a bad edit changes nothing"

    file.write_text(providers(url, models=("another",)))
    wait_for(lambda: offered() == {"another"}, what=product.logs)
    with pytest.raises(openai.NotFoundError, match="mock"):
        chat(client, "mock")


@pytest.mark.promise("P50")
def test_a_bad_providers_file_stops_the_start_with_file_line_and_reason(start: Starter, file: Path) -> None:
    file.write_text("providers:\n  - name: x\n    kind: openai\n    base_url: gopher://x\n    models: [{id: y}]\n")
    product = start("--providers", str(file), wait=False, model="none")
    assert product.process is not None
    assert product.process.wait(20) == 1
    said = product.logs()
    assert f"{file}, line 4: base_url: 'gopher://x'" in said
    assert "Traceback" not in said


def test_a_model_behind_no_living_endpoint_is_a_503_that_says_when_to_retry(
    start: Starter, upstreams: Callable[..., Upstream], file: Path, recorder: Recorder
) -> None:
    process, url = upstreams()
    product = serving(start, file, providers(url))
    client = product.client(recorder)
    assert chat(client, "mock")
    process.kill()
    process.wait(10)
    wait_for(lambda: httpx2.get(f"{product.base_url}/readyz").status_code == 503)
    with pytest.raises(openai.InternalServerError) as refused:
        chat(client, "mock")
    assert refused.value.status_code == 503
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert "mock" in refused.value.message
    recorder.check(answers=2)
