"""The replicas behind one name: every address record of a host, or a Kubernetes service's ready endpoints."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

import msgspec

from indigo.features.models.catalog import EndpointSpec
from indigo.features.models.probe import HttpProbe, ProbeFailed
from indigo.gateway.endpoints import Address, parse_address

log = logging.getLogger("indigo.models")

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT = 5.0


class DiscoveryFailed(Exception):
    """The name could not be looked up now; what was known of it stays."""


class _Conditions(msgspec.Struct):
    ready: bool | None = None


class _SliceEndpoint(msgspec.Struct):
    addresses: list[str]
    conditions: _Conditions = msgspec.field(default_factory=_Conditions)


class _SlicePort(msgspec.Struct):
    port: int | None = None
    name: str | None = None


class _Slice(msgspec.Struct):
    endpoints: list[_SliceEndpoint] | None = None
    ports: list[_SlicePort] | None = None


class _Slices(msgspec.Struct):
    items: list[_Slice]


class Kubernetes:
    """EndpointSlices (discovery.k8s.io/v1) as the pod's own service account may read them.

    `api` is the API server's URL; `folder` holds `token`, `namespace` and, for https, `ca.crt`. The token is
    read anew for each look-up, since it is rotated.
    """

    def __init__(self, api: str, folder: Path = SERVICE_ACCOUNT) -> None:
        self._address = parse_address(api)
        self._folder = folder

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Kubernetes | None:
        """The cluster that this process runs in, if it does."""
        host = environ.get("KUBERNETES_SERVICE_HOST")
        if not host:
            return None
        host = f"[{host}]" if ":" in host else host
        return cls(f"https://{host}:{environ.get('KUBERNETES_SERVICE_PORT', '443')}", folder)

    async def addresses(self, service: Address) -> tuple[Address, ...]:
        """The ready replicas of `service`, a host `name[.namespace[.svc…]]`. Raises DiscoveryFailed."""
        name, _, rest = service.host.partition(".")
        try:
            token = (self._folder / "token").read_text().strip()
            namespace = rest.split(".")[0] or (self._folder / "namespace").read_text().strip()
            tls = ssl.create_default_context(cafile=self._folder / "ca.crt") if self._address.tls else None
        except OSError as error:
            raise DiscoveryFailed(f"the service account cannot be read: {error}") from error
        path = (
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            f"?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
        )
        try:
            status, body = await HttpProbe(tls).fetch(
                self._address, path, (("Authorization", f"Bearer {token}"),), TIMEOUT
            )
        except ProbeFailed as error:
            raise DiscoveryFailed(f"the Kubernetes API: {error}") from error
        if status != 200:
            raise DiscoveryFailed(f"the Kubernetes API answered {status} for service {name} in {namespace}")
        try:
            slices = msgspec.json.decode(body, type=_Slices)
        except msgspec.DecodeError as error:
            raise DiscoveryFailed(f"the Kubernetes API's answer is none: {error}") from error
        found = {
            (ip, port)
            for one in slices.items
            if (port := _port(one.ports or [], service.port)) is not None
            for endpoint in one.endpoints or []
            if endpoint.conditions.ready is not False
            for ip in endpoint.addresses
        }
        return tuple(msgspec.structs.replace(service, ip=ip, port=port) for ip, port in sorted(found))


def _port(ports: list[_SlicePort], wanted: int) -> int | None:
    """Slices name the pods' ports, not the service's: the only one, else the wanted one, else `http`."""
    numbers = [port.port for port in ports if port.port is not None]
    if len(numbers) == 1 or wanted in numbers:
        return numbers[0] if len(numbers) == 1 else wanted
    return next((port.port for port in ports if port.name == "http"), None)


async def dns(service: Address) -> tuple[Address, ...]:
    """One address for each A and AAAA record of the host. Raises DiscoveryFailed."""
    try:
        async with asyncio.timeout(TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(service.host, service.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error
        raise DiscoveryFailed(f"{service.host}: {reason}") from error
    ips = sorted({str(sockaddr[0]) for *_, sockaddr in found})
    return tuple(msgspec.structs.replace(service, ip=ip) for ip in ips)


class Discovery:
    """Keeps what is known of each discovered name; a look-up that fails changes nothing."""

    def __init__(self, kubernetes: Kubernetes | None = None) -> None:
        self._kubernetes = kubernetes
        self._found: dict[EndpointSpec, tuple[Address, ...]] = {}
        self.errors: dict[str, str] = {}
        """By base URL, why its last look-up failed."""

    @property
    def found(self) -> Mapping[EndpointSpec, tuple[Address, ...]]:
        return dict(self._found)

    async def refresh(self, specs: set[EndpointSpec]) -> bool:
        """Look up each of `specs`, forget every other name. Whether anything changed."""
        before = self._found
        answers = await asyncio.gather(*(self._look_up(spec) for spec in specs))
        self._found = dict(zip(specs, answers, strict=True))
        self.errors = {url: why for url, why in self.errors.items() if url in {s.base_url for s in specs}}
        return self._found != before

    async def _look_up(self, spec: EndpointSpec) -> tuple[Address, ...]:
        service = parse_address(spec.base_url)
        try:
            if spec.discover == "dns":
                found = await dns(service)
            elif self._kubernetes is not None:
                found = await self._kubernetes.addresses(service)
            else:
                raise DiscoveryFailed("this process does not run in a Kubernetes cluster")
        except DiscoveryFailed as error:
            if self.errors.get(spec.base_url) != str(error):
                log.warning("discovery of %s failed: %s", spec.base_url, error)
            self.errors[spec.base_url] = str(error)
            return self._found.get(spec, ())
        self.errors.pop(spec.base_url, None)
        return found
