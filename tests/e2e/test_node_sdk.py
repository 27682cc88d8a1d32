"""The official Node SDK against the running product; what it is to find is in `node/sdk.mjs`."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from indigo.engines.demo import sentences
from tests.support.openapi import Recorder
from tests.support.product import CHAT, EMBEDDING, Product, environment

FOLDER = Path(__file__).with_name("node")


@pytest.fixture(scope="session")
def node_packages() -> None:
    """Exactly the packages of the lock, installed once for as long as the lock stays as it is."""
    lock, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / "installed-package-lock.json"
    with (FOLDER / "node_modules.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if installed.exists() and installed.read_bytes() == lock.read_bytes():
            return
        npm = subprocess.run(["npm", "ci"], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert npm.returncode == 0, npm.stdout + npm.stderr
        shutil.copy(lock, installed)


@pytest.mark.promise("P01", "P02", "P03", "P04", "P05")
@pytest.mark.usefixtures("node_packages")
def test_the_node_sdk_works_unchanged(product: Product, recorder: Recorder, tmp_path: Path) -> None:
    record = tmp_path / "answers.jsonl"
    node = subprocess.run(
        ["node", "sdk.mjs", f"{product.base_url}/v1", product.key, CHAT, EMBEDDING, str(record)],
        cwd=FOLDER, env=environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert node.returncode == 0, node.stdout + node.stderr
    assert json.loads(node.stdout)["answer"] == sentences.ANSWER
    for line in record.read_text().splitlines():
        seen = json.loads(line)
        if seen["kind"].startswith("text/event-stream"):
            stream = recorder.stream(seen["path"])
            stream.feed(seen["body"].encode())
            stream.end()
        else:
            recorder.answer(seen["path"], seen["status"], seen["body"].encode())
    recorder.check(answers=10, events=40)
    assert recorder.complete_streams == recorder.streams == 2
