"""Downloads from a hub of one's own on the loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indigo.engines.download import DownloadFailed, Reference, choose, fetch, parse
from tests.engines.fake_hub import FakeHub

DATA = bytes(range(256)) * 4096 * 20
FILES = {"README.md": b"hello", "m-q8_0.gguf": b"GGUF8", "m-q4_k_m.gguf": DATA}
MODEL = Reference("owner/repo", "m-q4_k_m.gguf")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(dict(FILES)).running() as running:
        yield running


def test_a_file_is_downloaded_once(hub: FakeHub, tmp_path: Path) -> None:
    path = fetch(MODEL, tmp_path, endpoint=hub.endpoint)
    assert path.read_bytes() == DATA
    asked = hub.requests
    assert fetch(MODEL, tmp_path, endpoint=hub.endpoint) == path
    assert hub.requests == asked


def test_without_a_file_name_the_usual_quantisation_is_taken(hub: FakeHub, tmp_path: Path) -> None:
    assert fetch(Reference("owner/repo", None), tmp_path, endpoint=hub.endpoint).name == "m-q4_k_m.gguf"


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(hub: FakeHub, tmp_path: Path) -> None:
    hub.cut_after = 12 * 1024 * 1024
    assert fetch(MODEL, tmp_path, endpoint=hub.endpoint).read_bytes() == DATA
    assert hub.ranges[0] is None
    assert hub.ranges[1] is not None
    assert int(hub.ranges[1].removeprefix("bytes=").rstrip("-").split("-")[0]) > 0


def test_a_wrong_checksum_is_refused_and_the_file_removed(hub: FakeHub, tmp_path: Path) -> None:
    hub.checksums["m-q4_k_m.gguf"] = "0" * 64
    with pytest.raises(DownloadFailed, match="checksum"):
        fetch(MODEL, tmp_path, endpoint=hub.endpoint)
    assert not list(tmp_path.rglob("m-q4_k_m.gguf"))


def test_a_gated_model_asks_for_the_token_and_takes_it(hub: FakeHub, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    with pytest.raises(DownloadFailed, match=r"gated.*HF_TOKEN"):
        fetch(MODEL, tmp_path, endpoint=hub.endpoint)
    assert fetch(MODEL, tmp_path, token="hf_secret", endpoint=hub.endpoint).read_bytes() == DATA


def test_what_the_hub_does_not_have_is_named(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=r"owner/repo has no file x\.gguf"):
        fetch(Reference("owner/repo", "x.gguf"), tmp_path, endpoint=hub.endpoint)
    with pytest.raises(DownloadFailed, match="other/repo does not exist"):
        fetch(Reference("other/repo", None), tmp_path, endpoint=hub.endpoint)


def test_a_hub_that_cannot_be_reached_is_given_up_quickly(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for reference in (MODEL, Reference("owner/repo", None)):
            started = time.monotonic()
            with pytest.raises(DownloadFailed, match="cannot be reached") as raised:
                fetch(reference, tmp_path, endpoint=endpoint)
            assert raised.value.unreachable
            assert time.monotonic() - started < 5


@pytest.mark.parametrize("text", ["hf:x", "hf:a/b/c", "hf:../b:c", "x", "hf:a/b:", "hf:a/b:../../x.gguf"])
def test_a_reference_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not hf:owner/repo"):
        parse(text)


def test_a_reference_names_a_repository_and_perhaps_a_file() -> None:
    assert parse("hf:a/b-GGUF:c/d.gguf") == Reference("a/b-GGUF", "c/d.gguf")
    assert parse("hf:a/b") == Reference("a/b", None)


def test_of_several_files_the_usual_quantisation_is_chosen() -> None:
    assert choose(["a.md", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "mmproj-Q4_K_M.gguf"]) == "m-Q4_K_M.gguf"
    assert choose(["m-q4_k_m-00001-of-00002.gguf", "m-q8_0.gguf"]) == "m-q8_0.gguf"
    assert choose(["strange.gguf"]) == "strange.gguf"
    assert choose(["a.md"]) is None
