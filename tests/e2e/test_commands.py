"""The command line beside a running server, and the routes that operators look at."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.support.openapi import Recorder
from tests.support.product import CHAT, EMBEDDING, INDIGO, Product, Starter, Upstream, environment, wait_for

HELLO: Any = [{"role": "user", "content": "Hello!"}]


def indigo(product: Product, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {"INDIGO_DATA_DIR": str(product.data_dir)}
    if product.database_url:
        env["DATABASE_URL"] = product.database_url
    return subprocess.run(
        [str(INDIGO), *arguments], env=environment(**env), capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.promise("P13")
def test_every_route_for_operators_answers(product: Product) -> None:
    for path in ("/healthz", "/readyz", "/healthcheck"):
        assert product.get(path).status_code == 200, path
    version = indigo(product, "version").stdout.strip()
    assert version in product.get("/v1/version").text
    metrics = product.get("/metrics").text
    assert re.search(r"^indigo_endpoint_healthy\{.*\} 1\.0$", metrics, re.MULTILINE)


@pytest.mark.promise("P14")
def test_the_documentation_is_served_from_here(product: Product) -> None:
    described = product.get("/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models"} <= set(described["paths"])
    for path in ("/api/swagger/index.html", "/v1/swagger/index.html"):
        page = product.get(path, follow_redirects=True)
        assert page.status_code == 200
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text), "nothing is fetched from elsewhere"
        for asset in re.findall(r'(?:src|href)="([^"]+\.(?:js|css))"', page.text):
            assert product.get(str(page.url.join(asset).path)).status_code == 200, asset


@pytest.mark.promise("P34")
def test_a_key_made_on_the_command_line_works_until_it_is_revoked(product: Product, recorder: Recorder) -> None:
    made = indigo(product, "keys", "create", "for a test", "--model", CHAT)
    secret = made.stdout.strip()
    assert secret.startswith("sk-proj-"), made.stderr
    client = product.client(recorder, api_key=secret)
    assert client.chat.completions.create(model=CHAT, messages=HELLO).choices
    with pytest.raises((openai.PermissionDeniedError, openai.NotFoundError), match=EMBEDDING):
        client.embeddings.create(model=EMBEDDING, input="x")
    listed = indigo(product, "keys", "list").stdout
    assert secret not in listed
    key_id = re.search(r"key_\w+", made.stderr)
    assert key_id is not None
    assert key_id[0] in listed
    assert indigo(product, "keys", "revoke", key_id[0]).returncode == 0

    def refused() -> bool:
        try:
            client.chat.completions.create(model=CHAT, messages=HELLO)
        except openai.AuthenticationError:
            return True
        return False

    wait_for(refused, 10)
    recorder.check(answers=3)


@pytest.mark.promise("P71")
def test_a_server_that_may_not_migrate_says_what_to_run(empty_database_url: str, start: Starter) -> None:
    product = start(database_url=empty_database_url, env={"AUTO_MIGRATE": "false"}, wait=False)
    assert product.process is not None
    assert product.process.wait(20) == 1
    assert "indigo migrate" in product.logs()
    assert indigo(product, "migrate", "--check").returncode == 1
    assert indigo(product, "migrate").returncode == 0
    assert indigo(product, "migrate", "--check").returncode == 0
    product.start()
    assert product.get("/readyz").status_code == 200


@pytest.mark.promise("P100", "P51")
def test_settings_go_by_the_names_that_other_deployments_use(
    start: Starter, recorder: Recorder, upstreams: Callable[..., Upstream], empty_database_url: str
) -> None:
    _, url = upstreams()
    env = {"JAN_INFERENCE_MODEL_URL": url, "ENABLE_SWAGGER": "false", "DB_POSTGRESQL_WRITE_DSN": empty_database_url}
    product = start(model="none", env=env)
    client = product.client(recorder)
    assert "mock" in {model.id for model in client.models.list()}
    answer = client.chat.completions.create(model="mock", messages=HELLO)
    assert (answer.choices[0].message.content or "").startswith("Hello!")
    assert "Documentation" not in product.output()
    assert product.get("/api/swagger/index.html").status_code == 404
    assert not (product.data_dir / "indigo.db").exists()
    recorder.check(answers=2)


def test_a_second_server_on_the_same_folder_is_refused_with_a_sentence(start: Starter) -> None:
    product = start()
    second = indigo(product, "serve", "--port", "0", "--model", "demo")
    assert second.returncode == 1
    assert str(product.data_dir) in second.stderr
    assert "Traceback" not in second.stderr
    assert product.get("/readyz").status_code == 200
