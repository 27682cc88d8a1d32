"""What is on offer, as frozen records: providers, their endpoints, their models. Pure; no file, no socket.

`providers_file` reads them from a file, engines of this machine offer theirs through `from_offer`;
`routing_table` makes what the gateway routes by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from indigo.gateway import operations
from indigo.gateway.ports import Price
from indigo.kernel.errors import InvalidRequest

Headers = tuple[tuple[str, str], ...]

FREE = Price()
DEFAULT_OPERATIONS = frozenset({operations.CHAT, operations.COMPLETIONS})
"""Of a model whose capabilities nobody stated."""


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """An address, or with `discover` (`dns` or `kubernetes`) a name behind which there are many."""

    base_url: str
    weight: int = 1
    headers: Headers = field(default=(), repr=False)
    discover: str = ""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as clients name it. Without `endpoints` of its own it is served by its provider's."""

    id: str
    served_name: str
    operations: frozenset[str] = DEFAULT_OPERATIONS
    endpoints: tuple[EndpointSpec, ...] = ()
    aliases: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    context_length: int | None = None
    price: Price = FREE
    enabled: bool = True
    single_tool_choice: bool = False


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """With `lists` the models are what each endpoint's `GET /v1/models` says, besides those named here."""

    name: str
    endpoints: tuple[EndpointSpec, ...]
    models: tuple[ModelSpec, ...] = ()
    kind: str = "openai"
    lists: bool = False
    operations: frozenset[str] = operations.ALL
    """Of the listed models: nobody stated theirs, so the endpoint is left to judge."""
    written_headers: Headers = ()
    """As written, without secrets: what may be stored and shown."""
    source: str = "file"
    enabled: bool = True

    def endpoints_of(self, model: ModelSpec) -> tuple[EndpointSpec, ...]:
        return model.endpoints or self.endpoints

    def all_endpoints(self) -> tuple[EndpointSpec, ...]:
        """The provider's and its models' own, each once."""
        own = (spec for model in self.models if model.enabled for spec in model.endpoints)
        return tuple(dict.fromkeys((*self.endpoints, *own)))


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything on offer. `default_provider` goes first where two providers offer the same model."""

    providers: tuple[ProviderSpec, ...] = ()
    default_provider: str = ""

    def enabled(self) -> Iterable[ProviderSpec]:
        return (provider for provider in self.providers if provider.enabled)

    def with_offers(self, offers: Iterable[ProviderSpec]) -> Catalog:
        """This catalogue and what the machine's own engines offer.

        Raises InvalidRequest for a provider's name that is taken.
        """
        offered = tuple(offers)
        names = [provider.name for provider in (*self.providers, *offered)]
        if taken := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidRequest(
                f"Two providers are named {taken[0]!r}; rename the one in the providers file.",
                code="invalid_providers_file",
            )
        return dataclasses.replace(self, providers=self.providers + offered)


class OfferedModel(Protocol):
    """What an engine says of a model that it serves."""

    @property
    def id(self) -> str: ...
    @property
    def served_name(self) -> str: ...
    @property
    def operations(self) -> frozenset[str]: ...
    @property
    def context_length(self) -> int | None: ...
    @property
    def single_tool_choice(self) -> bool: ...


class Offer(Protocol):
    """What an engine of this machine says of itself."""

    @property
    def name(self) -> str: ...
    @property
    def base_url(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def models(self) -> Sequence[OfferedModel]: ...


def from_offer(offer: Offer) -> ProviderSpec:
    return ProviderSpec(
        name=offer.name,
        endpoints=(EndpointSpec(base_url=offer.base_url, headers=tuple(offer.headers.items())),),
        models=tuple(
            ModelSpec(
                id=model.id,
                served_name=model.served_name,
                operations=frozenset(model.operations),
                context_length=model.context_length,
                single_tool_choice=model.single_tool_choice,
            )
            for model in offer.models
        ),
        source="engine",
    )


def listing_provider(name: str, base_url: str, headers: Headers = ()) -> ProviderSpec:
    """A provider known by its address alone: its models are what it lists, under their own names."""
    return ProviderSpec(
        name=name, endpoints=(EndpointSpec(base_url=base_url, headers=headers),), lists=True, source="setting"
    )
