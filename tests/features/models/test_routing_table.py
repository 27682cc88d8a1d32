from __future__ import annotations

import pytest

from indigo.features.models.catalog import Catalog, EndpointSpec, ModelSpec, ProviderSpec, from_offer
from indigo.features.models.routing_table import RoutingTable
from indigo.gateway.endpoints import Endpoint, parse_address
from indigo.gateway.operations import EMBEDDINGS
from indigo.gateway.ports import ModelEntry, Price, Routes

A, B = EndpointSpec("http://a/v1"), EndpointSpec("http://b/v1", weight=3)


def provider(name: str, *models: ModelSpec, at: tuple[EndpointSpec, ...] = (A,)) -> ProviderSpec:
    return ProviderSpec(name=name, endpoints=at, models=models)


def table(*providers: ProviderSpec, default: str = "") -> RoutingTable:
    it = RoutingTable()
    it.update(Catalog(providers, default), {})
    return it


def entry(it: RoutingTable, name: str) -> ModelEntry:
    found = it.entry(name)
    assert found is not None
    return found


def urls(model: ModelEntry) -> list[tuple[str, int, int]]:
    return [(one.endpoint.address.host, one.weight, one.tier) for one in model.targets]


def test_a_model_is_found_by_id_and_alias_as_the_same_entry() -> None:
    routes: Routes = table(provider("p", ModelSpec("m", "S", aliases=("x",)), ModelSpec("b", "b")))
    assert routes.entry("x") is routes.entry("m") is not None
    assert routes.entry("nope") is None
    assert [one.id for one in routes.entries()] == ["b", "m"]


@pytest.mark.promise("P52")
def test_a_model_is_served_by_every_endpoint_with_its_weight() -> None:
    drained = EndpointSpec("http://c", weight=0)
    it = table(provider("p", ModelSpec("m", "S"), at=(A, B, drained)))
    assert urls(entry(it, "m")) == [("a", 1, 0), ("b", 3, 0)]
    assert {one.served_name for one in entry(it, "m").targets} == {"S"}


def test_a_models_own_endpoints_replace_the_providers() -> None:
    it = table(provider("p", ModelSpec("m", "m", endpoints=(B,)), ModelSpec("n", "n")))
    assert urls(entry(it, "m")) == [("b", 3, 0)]
    assert urls(entry(it, "n")) == [("a", 1, 0)]


def test_two_providers_of_one_model_share_its_requests() -> None:
    it = table(provider("p", ModelSpec("m", "m")), provider("q", ModelSpec("m", "M"), at=(B,)))
    assert urls(entry(it, "m")) == [("a", 1, 0), ("b", 3, 0)]
    assert it.owner("m") == "p"


@pytest.mark.promise("P50")
def test_the_default_provider_goes_first_and_the_others_stand_by() -> None:
    cheap = ModelSpec("m", "m", price=Price(input=1))
    it = table(provider("p", ModelSpec("m", "m")), provider("q", cheap, at=(B,)), default="q")
    assert urls(entry(it, "m")) == [("b", 3, 0), ("a", 1, 1)]
    assert it.owner("m") == "q"
    assert entry(it, "m").price == Price(input=1)


def test_disabled_providers_and_models_are_not_offered() -> None:
    off = ProviderSpec("off", (A,), (ModelSpec("x", "x"),), enabled=False)
    it = table(off, provider("p", ModelSpec("m", "m", enabled=False), ModelSpec("n", "n")))
    assert [one.id for one in it.entries()] == ["n"]


@pytest.mark.promise("P51")
def test_an_endpoint_that_stays_keeps_its_load_and_breaker_across_a_change() -> None:
    dropped: list[Endpoint] = []
    it = RoutingTable(dropped.append)
    it.update(Catalog((provider("p", ModelSpec("m", "m"), at=(A, B)),)), {})
    before = {one.endpoint.address.host: one.endpoint for one in entry(it, "m").targets}
    begun = before["b"].begin(0.0)
    it.update(Catalog((provider("p", ModelSpec("m", "renamed"), ModelSpec("n", "n")),)), {})
    assert entry(it, "m").targets[0].endpoint is before["a"]
    assert entry(it, "n").targets[0].endpoint is before["a"]
    assert dropped == [before["b"]]
    before["b"].succeeded(begun, 1.0)
    assert before["b"].in_flight == 0


def test_other_headers_make_another_endpoint_under_the_same_id() -> None:
    it = table(provider("p", ModelSpec("m", "m"), at=(EndpointSpec("http://a", headers=(("K", "1"),)),)))
    old = it.endpoints()[0]
    it.update(
        Catalog((provider("p", ModelSpec("m", "m"), at=(EndpointSpec("http://a", headers=(("K", "2"),)),)),)),
        {},
    )
    (new,) = it.endpoints()
    assert new is not old
    assert new.id == old.id == "p/a"


def test_endpoints_that_differ_in_headers_only_have_ids_of_their_own() -> None:
    specs = tuple(EndpointSpec("http://a", headers=(("K", key),)) for key in "123")
    it = table(provider("p", ModelSpec("m", "m"), at=specs))
    assert [one.id for one in it.endpoints()] == ["p/a", "p/a#2", "p/a#3"]


@pytest.mark.promise("P51")
def test_discovered_addresses_are_endpoints_and_vanish_again() -> None:
    spec = EndpointSpec("http://svc:80", weight=2, discover="dns")
    catalog = Catalog((provider("p", ModelSpec("m", "m"), at=(spec,)),))
    it = RoutingTable()
    it.update(catalog, {})
    assert entry(it, "m").targets == ()
    base = parse_address("http://svc:80")
    two = tuple(type(base)(base.host, base.port, base.tls, base.prefix, ip=f"10.0.0.{n}") for n in (1, 2))
    it.update(catalog, {spec: two})
    first = entry(it, "m").targets
    assert [one.endpoint.id for one in first] == ["p/10.0.0.1:80", "p/10.0.0.2:80"]
    assert {one.endpoint.address.authority for one in first} == {"svc"}
    it.update(catalog, {spec: two[1:]})
    assert [one.endpoint for one in entry(it, "m").targets] == [first[1].endpoint]


@pytest.mark.promise("P51")
def test_a_listed_model_is_asked_only_where_it_is_listed() -> None:
    it = table(ProviderSpec("p", (A, B), lists=True, operations=frozenset({EMBEDDINGS})))
    a, b = it.endpoints()
    assert it.entries() == ()
    assert it.listed(a, (("m", 4096), ("n", None)))
    assert it.listed(b, (("m", 4096),))
    assert not it.listed(b, (("m", 4096),))
    assert [one[0] for one in urls(entry(it, "m"))] == ["a", "b"]
    assert [one[0] for one in urls(entry(it, "n"))] == ["a"]
    assert entry(it, "m").context_length == 4096
    assert entry(it, "m").operations == {EMBEDDINGS}
    it.listed(a, ())
    assert it.entry("n") is None
    assert [one[0] for one in urls(entry(it, "m"))] == ["b"]


def test_an_alias_is_not_taken_over_by_a_model_of_that_name_that_turns_up() -> None:
    it = table(provider("p", ModelSpec("m", "m", aliases=("gpt",))), ProviderSpec("l", (B,), lists=True))
    it.listed(it.endpoints()[1], (("gpt", None),))
    assert it.entry("gpt") is it.entry("m")


def test_what_an_engine_offers_is_routed_like_any_provider() -> None:
    class Model:
        id, served_name, context_length, single_tool_choice = "demo", "served", 2048, True
        operations = frozenset({EMBEDDINGS})

    class Offer:
        name, base_url, headers, models = "llama", "unix:/run/llama.sock", {"A": "b"}, (Model(),)

    it = table(from_offer(Offer()))
    demo = entry(it, "demo")
    assert demo.single_tool_choice
    assert (demo.context_length, demo.operations) == (2048, {EMBEDDINGS})
    assert demo.targets[0].served_name == "served"
    assert demo.targets[0].endpoint.address.unix == "/run/llama.sock"
    assert demo.targets[0].endpoint.headers == (("A", "b"),)
