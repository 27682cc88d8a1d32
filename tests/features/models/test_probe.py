from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from indigo.features.models.probe import HttpProbe, ProbeFailed
from indigo.gateway.endpoints import Endpoint, parse_address
from tests.features.models.upstream import Upstream, serving

HEADERS = (("Authorization", "Bearer s3cret"),)


def endpoint(url: str) -> Endpoint:
    return Endpoint(id="e", provider="p", address=parse_address(url), headers=HEADERS)


async def get(it: Upstream, probe: HttpProbe | None = None, timeout: float = 5.0) -> tuple[int, bytes]:
    return await (probe or HttpProbe()).get(endpoint(it.url), "/health", timeout)


async def test_a_get_carries_host_and_the_endpoints_headers() -> None:
    async with serving(Upstream({"/health": (200, b"ok")})) as it:
        assert await get(it) == (200, b"ok")
        ((path, headers),) = it.requests
    assert path == "/health"
    assert headers["Host"] == f"127.0.0.1:{it.port}"
    assert headers["Authorization"] == "Bearer s3cret"


async def test_a_unix_socket_is_asked_too(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(Upstream({"/health": (200, b"")}), unix=path):
        assert await HttpProbe().get(endpoint(f"unix:{path}"), "/health", 5.0) == (200, b"")


@pytest.mark.threat("T37")
async def test_a_redirect_is_not_followed_so_the_credentials_stay_where_they_belong() -> None:
    async with serving() as elsewhere:
        moved = Upstream({"/health": (302, b"")}, location=f"http://127.0.0.1:{elsewhere.port}/health")
        async with serving(moved) as it:
            assert (await get(it))[0] == 302
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", (200, b"until the end")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            (200, b"abc"),
        ),
        (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 No\r\n\r\n", (204, b"")),
    ],
)
async def test_every_framing_of_an_answer_is_read(raw: bytes, answer: tuple[int, bytes]) -> None:
    async with serving(Upstream(raw=raw)) as it:
        assert await get(it) == answer


@pytest.mark.threat("F19")
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "closed the connection"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 20_000, "larger than"),
    ],
)
async def test_a_broken_answer_is_a_failed_probe(raw: bytes, reason: str) -> None:
    async with serving(Upstream(raw=raw)) as it:
        with pytest.raises(ProbeFailed, match=reason):
            await get(it, HttpProbe(bytes_most=10_000))


async def test_silence_is_a_failed_probe() -> None:
    async with serving(Upstream(hang=True)) as it:
        with pytest.raises(ProbeFailed, match=r"no answer within 0\.05 seconds"):
            await get(it, timeout=0.05)


async def test_nobody_listening_is_a_failed_probe() -> None:
    async with serving() as it:
        pass
    with pytest.raises(ProbeFailed, match="cannot connect"):
        await get(it)


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name}"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


@pytest.mark.threat("T37", "F19")
async def test_a_certificate_is_verified_and_a_foreign_one_gets_no_credentials(tmp_path: Path) -> None:
    context, cert = certificate(tmp_path, "localhost")
    trusting = HttpProbe(ssl.create_default_context(cafile=cert))
    async with serving(Upstream({"/health": (200, b"ok")}), tls=context) as it:
        url = f"https://localhost:{it.port}"
        assert await trusting.get(endpoint(url), "/health", 5.0) == (200, b"ok")
        it.requests.clear()
        with pytest.raises(ProbeFailed, match="not trusted"):
            await HttpProbe().get(endpoint(url), "/health", 5.0)
        with pytest.raises(ProbeFailed, match="not trusted"):
            await trusting.get(endpoint(f"https://127.0.0.1:{it.port}"), "/health", 5.0)
        assert it.requests == []
