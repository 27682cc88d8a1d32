from __future__ import annotations

import json
from pathlib import Path

import pytest

from indigo.features.models.catalog import EndpointSpec
from indigo.features.models.discovery import Discovery, DiscoveryFailed, Kubernetes, dns
from indigo.gateway.endpoints import parse_address
from tests.features.models.upstream import serving

SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{}"
SPEC = EndpointSpec("http://vllm.models.svc:8000/v1", discover="kubernetes")


def slices(*ips: str, ports: tuple[tuple[str, int], ...] = (("http", 9000),)) -> tuple[int, bytes]:
    endpoints = [{"addresses": [ip], "conditions": {"ready": True}} for ip in ips]
    endpoints.append({"addresses": ["10.9.9.9"], "conditions": {"ready": False}})
    endpoints.append({"addresses": ["10.0.0.99"], "conditions": {}})
    item = {"endpoints": endpoints, "ports": [{"name": name, "port": port} for name, port in ports]}
    return 200, json.dumps({"items": [item, {"endpoints": None, "ports": None}]}).encode()


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("t0ken\n")
    (tmp_path / "namespace").write_text("own")
    return tmp_path


@pytest.mark.promise("P51")
async def test_the_ready_pods_of_a_kubernetes_service_are_its_endpoints(account: Path) -> None:
    async with serving() as api:
        api.answers[SLICES.format("models", "vllm")] = slices("10.0.0.2", "10.0.0.1")
        found = await Kubernetes(f"http://127.0.0.1:{api.port}", account).addresses(parse_address(SPEC.base_url))
    assert [(one.ip, one.port, one.host) for one in found] == [
        ("10.0.0.1", 9000, "vllm.models.svc"),
        ("10.0.0.2", 9000, "vllm.models.svc"),
        ("10.0.0.99", 9000, "vllm.models.svc"),
    ]
    assert api.requests[0][1]["Authorization"] == "Bearer t0ken"


async def test_a_bare_service_name_means_the_pods_own_namespace(account: Path) -> None:
    async with serving() as api:
        api.answers[SLICES.format("own", "vllm")] = slices("10.0.0.1", ports=(("metrics", 1), ("x", 8000)))
        found = await Kubernetes(f"http://127.0.0.1:{api.port}", account).addresses(parse_address("http://vllm:8000"))
    assert {one.port for one in found} == {8000}


@pytest.mark.parametrize("answer", [(403, b"{}"), (200, b"<html>"), (200, b'{"items": 5}')])
async def test_an_api_that_refuses_or_talks_nonsense_is_a_failed_discovery(
    account: Path, answer: tuple[int, bytes]
) -> None:
    async with serving() as api:
        api.answers[SLICES.format("models", "vllm")] = answer
        with pytest.raises(DiscoveryFailed):
            await Kubernetes(f"http://127.0.0.1:{api.port}", account).addresses(parse_address(SPEC.base_url))


def test_outside_a_cluster_there_is_no_kubernetes() -> None:
    assert Kubernetes.from_environ({}) is None
    assert Kubernetes.from_environ({"KUBERNETES_SERVICE_HOST": "fd00::1"}) is not None


@pytest.mark.promise("P51")
async def test_a_failed_look_up_keeps_what_was_known_and_says_why(account: Path) -> None:
    async with serving() as api:
        path = SLICES.format("models", "vllm")
        api.answers[path] = slices("10.0.0.1")
        discovery = Discovery(Kubernetes(f"http://127.0.0.1:{api.port}", account))
        assert await discovery.refresh({SPEC})
        known = discovery.found[SPEC]
        assert len(known) == 2
        api.answers[path] = (500, b"")
        assert not await discovery.refresh({SPEC})
        assert discovery.found[SPEC] == known
        assert "answered 500" in discovery.errors[SPEC.base_url]
        api.answers[path] = slices()
        assert await discovery.refresh({SPEC})
        assert [one.ip for one in discovery.found[SPEC]] == ["10.0.0.99"]
        assert discovery.errors == {}
        assert await discovery.refresh(set())
        assert discovery.found == {}


@pytest.mark.promise("P51")
async def test_every_address_record_of_a_name_is_an_endpoint() -> None:
    found = await dns(parse_address("http://localhost:8000"))
    assert "127.0.0.1" in {one.ip for one in found}
    assert {(one.host, one.port) for one in found} == {("localhost", 8000)}


@pytest.mark.threat("F19")
async def test_an_unknown_name_is_a_failed_discovery() -> None:
    with pytest.raises(DiscoveryFailed, match=r"nowhere\.invalid"):
        await dns(parse_address("http://nowhere.invalid"))
