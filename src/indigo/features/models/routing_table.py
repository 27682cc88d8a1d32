"""The adapter of the gateway's `Routes`: every model with its targets, in one snapshot.

A rebuild replaces it at once, and keeps the `Endpoint` objects whose provider, address and headers stayed the
same, so that load and breaker survive. One that is gone only loses its place here: its requests finish.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from indigo.features.models.catalog import Catalog, EndpointSpec, Headers, ModelSpec, ProviderSpec
from indigo.gateway.endpoints import Address, Endpoint, parse_address
from indigo.gateway.ports import ModelEntry, Target

log = logging.getLogger("indigo.models")

Listing = tuple[tuple[str, int | None], ...]
"""What an endpoint says it serves: each model's id, and its context length where it is told."""

Discovered = Mapping[EndpointSpec, tuple[Address, ...]]

_Key = tuple[str, Address, Headers]


@dataclass(frozen=True, slots=True)
class Offered:
    """A provider's model and where it is served now: what a `ModelEntry` is made of."""

    provider: ProviderSpec
    model: ModelSpec
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    by_name: Mapping[str, ModelEntry]
    entries: tuple[ModelEntry, ...]
    owners: Mapping[str, str]
    offered: tuple[Offered, ...]


_EMPTY = _Snapshot(MappingProxyType({}), (), MappingProxyType({}), ())


class RoutingTable:
    """See the module. `dropped` hears of each endpoint that is no longer routed to."""

    def __init__(self, dropped: Callable[[Endpoint], None] = lambda _: None) -> None:
        self._dropped = dropped
        self._snapshot = _EMPTY
        self._catalog = Catalog()
        self._discovered: Discovered = {}
        self._endpoints: dict[_Key, Endpoint] = {}
        self._listing: dict[Endpoint, bool] = {}
        self._listed: dict[Endpoint, Listing] = {}

    def entry(self, model: str) -> ModelEntry | None:
        """The model of that id or alias, whether or not it is healthy now."""
        return self._snapshot.by_name.get(model)

    def entries(self) -> Sequence[ModelEntry]:
        """Every model, ordered by id."""
        return self._snapshot.entries

    def owner(self, model: str) -> str:
        """The provider that `model` (an id) is counted to: the first that offers it."""
        return self._snapshot.owners[model]

    def offered(self) -> tuple[Offered, ...]:
        """What each provider offers, before equal ids are brought together."""
        return self._snapshot.offered

    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(self._endpoints.values())

    def lists(self, endpoint: Endpoint) -> bool:
        """Whether the models of `endpoint` are those that it lists."""
        return self._listing.get(endpoint, False)

    def update(self, catalog: Catalog, discovered: Discovered) -> None:
        """Route by `catalog` from now on; `discovered` has the addresses of the specs that are discovered."""
        self._catalog, self._discovered = catalog, discovered
        self._rebuild()

    def listed(self, endpoint: Endpoint, listing: Listing) -> bool:
        """An endpoint said what it serves. Whether that was news."""
        if endpoint not in self._listing or self._listed.get(endpoint) == listing:
            return False
        self._listed[endpoint] = listing
        self._rebuild()
        return True

    def _rebuild(self) -> None:
        keys = {
            (provider.name, spec): [(provider.name, address, spec.headers) for address in self._addresses(spec)]
            for provider in self._catalog.enabled()
            for spec in provider.all_endpoints()
        }
        endpoints = self._kept_or_new(dict.fromkeys(key for found in keys.values() for key in found))
        listing: dict[Endpoint, bool] = {}
        offered: list[Offered] = []
        for provider in self._catalog.enabled():
            placed = {
                spec: tuple(endpoints[key] for key in keys[provider.name, spec]) for spec in provider.all_endpoints()
            }
            for spec, found in placed.items():
                listing.update((endpoint, provider.lists and spec in provider.endpoints) for endpoint in found)
            offered.extend(self._offered(provider, placed))
        gone = [endpoint for key, endpoint in self._endpoints.items() if key not in endpoints]
        self._endpoints, self._listing = endpoints, listing
        self._listed = {endpoint: found for endpoint, found in self._listed.items() if endpoint in listing}
        self._snapshot = _snapshot(offered, self._catalog)
        for endpoint in gone:
            self._dropped(endpoint)

    def _addresses(self, spec: EndpointSpec) -> tuple[Address, ...]:
        return self._discovered.get(spec, ()) if spec.discover else (parse_address(spec.base_url),)

    def _kept_or_new(self, keys: Collection[_Key]) -> dict[_Key, Endpoint]:
        """An endpoint for each key. Ids are provider and address, numbered where only headers differ."""
        ids = {self._endpoints[key].id for key in keys if key in self._endpoints}
        endpoints: dict[_Key, Endpoint] = {}
        for key in keys:
            if (kept := self._endpoints.get(key)) is not None:
                endpoints[key] = kept
                continue
            provider, address, headers = key
            plain = f"{provider}/{_where(address)}"
            numbered = (f"{plain}#{number}" for number in itertools.count(2))
            id = plain if plain not in ids else next(one for one in numbered if one not in ids)
            ids.add(id)
            endpoints[key] = Endpoint(id=id, provider=provider, address=address, headers=headers)
        return endpoints

    def _offered(self, provider: ProviderSpec, placed: Mapping[EndpointSpec, tuple[Endpoint, ...]]) -> list[Offered]:
        offered = [
            Offered(provider, model, _targets(provider.endpoints_of(model), placed, model.served_name))
            for model in provider.models
            if model.enabled
        ]
        if not provider.lists:
            return offered
        found: dict[str, int | None] = {}
        serving: dict[str, set[Endpoint]] = {}
        for endpoint in (one for spec in provider.endpoints for one in placed[spec]):
            for id, context_length in self._listed.get(endpoint, ()):
                found.setdefault(id, context_length)
                serving.setdefault(id, set()).add(endpoint)
        for id, context_length in found.items():
            model = ModelSpec(id=id, served_name=id, operations=provider.operations, context_length=context_length)
            targets = _targets(provider.endpoints, placed, id)
            offered.append(Offered(provider, model, tuple(one for one in targets if one.endpoint in serving[id])))
        return offered


def _targets(
    specs: Sequence[EndpointSpec], placed: Mapping[EndpointSpec, tuple[Endpoint, ...]], served_name: str
) -> tuple[Target, ...]:
    """A weight of 0 takes no new requests."""
    return tuple(
        Target(endpoint=endpoint, served_name=served_name, weight=spec.weight)
        for spec in specs
        if spec.weight
        for endpoint in placed[spec]
    )


def _snapshot(offered: Sequence[Offered], catalog: Catalog) -> _Snapshot:
    aliases = {alias: one.model.id for one in offered for alias in one.model.aliases}
    together: dict[str, list[Offered]] = {}
    for one in offered:
        if one.model.id in aliases:
            log.warning("model %s of %s is hidden by an alias", one.model.id, one.provider.name)
        else:
            together.setdefault(one.model.id, []).append(one)
    by_name: dict[str, ModelEntry] = {}
    owners: dict[str, str] = {}
    for id in sorted(together):
        by_name[id], owners[id] = _entry(together[id], catalog.default_provider)
    entries = tuple(by_name.values())
    by_name.update({alias: by_name[id] for alias, id in aliases.items() if id in by_name})
    return _Snapshot(MappingProxyType(by_name), entries, MappingProxyType(owners), tuple(offered))


def _entry(offers: Sequence[Offered], default_provider: str) -> tuple[ModelEntry, str]:
    """One model of all that offer it: together, unless the default provider does; then the rest stands by."""
    preferred = [one for one in offers if one.provider.name == default_provider]
    rest = [one for one in offers if one.provider.name != default_provider]
    first = (preferred or rest)[0]
    tier = 1 if preferred else 0
    targets = [target for one in preferred for target in one.targets]
    targets += [
        Target(endpoint=target.endpoint, served_name=target.served_name, weight=target.weight, tier=tier)
        for one in rest
        for target in one.targets
    ]
    entry = ModelEntry(
        id=first.model.id,
        operations=first.model.operations,
        targets=tuple(targets),
        context_length=first.model.context_length,
        price=first.model.price,
        fallbacks=first.model.fallbacks,
        single_tool_choice=any(one.model.single_tool_choice for one in offers),
    )
    return entry, first.provider.name


def _where(address: Address) -> str:
    where = address.unix or (f"{address.ip}:{address.port}" if address.ip else address.authority)
    return where.lstrip("/")
