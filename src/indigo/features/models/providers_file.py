"""`providers.yaml`: what its keys mean. The result is a `Catalog`, or one error with file, line and reason.

The grammar is `marked_yaml`'s; following the file while running is `watch`'s. See
docs/operating/providers.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from yaml.nodes import Node

from indigo.features.models.catalog import (
    DEFAULT_OPERATIONS,
    Catalog,
    EndpointSpec,
    Headers,
    ModelSpec,
    ProviderSpec,
)
from indigo.features.models.marked_yaml import Document, ProvidersFileError, without_secrets
from indigo.gateway.endpoints import parse_address
from indigo.gateway.operations import ALL, CAPABILITIES
from indigo.gateway.ports import Price
from indigo.kernel import money

KINDS = ("openai",)
WEIGHT_MOST = 1000

_TOP = frozenset({"providers", "routing"})
_ROUTING = frozenset({"default_provider"})
_ENDPOINT = frozenset({"base_url", "weight", "headers", "discover"})
_PROVIDER = _ENDPOINT | {"name", "kind", "endpoints", "models", "capabilities", "enabled"}
_MODEL = frozenset(
    {
        "id",
        "served_name",
        "capabilities",
        "aliases",
        "fallbacks",
        "context_length",
        "price",
        "enabled",
        "single_tool_choice",
        "endpoints",
    }
)
_PRICE = frozenset({"input", "cached_input", "output", "request"})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OUR_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"}
)
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}")
_PROVIDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def read(path: Path) -> str:
    """The file's text. Raises ProvidersFileError."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ProvidersFileError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ProvidersFileError(f"{path}, line {line}: it is not UTF-8 text.") from error


def parse(text: str, source: str, environ: Mapping[str, str], known: frozenset[str] = frozenset()) -> Catalog:
    """The catalogue that `text` describes; `known` are models offered from elsewhere.

    Raises ProvidersFileError, whose message begins with `source` and the line.
    """
    return _Reader(Document(text, source, environ), known).catalog()


class _Reader:
    def __init__(self, document: Document, known: frozenset[str]) -> None:
        self._doc = document
        self._known = known
        self._ids: set[str] = set(known)
        self._aliases: dict[str, str] = {}
        self._named: list[tuple[Node, str, str]] = []
        """Every alias and fallback (node, model, "alias" or "fallback"), judged when all ids are known."""

    def catalog(self) -> Catalog:
        root = self._doc.root
        if root is None:
            return Catalog()
        top = self._doc.fields(root, "the file", _TOP)
        providers: list[ProviderSpec] = []
        for node in self._doc.items(top.get("providers"), "providers"):
            provider = self._provider(node)
            if any(provider.name == other.name for other in providers):
                self._doc.fail(node, f"a second provider is named {provider.name!r}")
            providers.append(provider)
        default = ""
        if "routing" in top:
            routing = self._doc.fields(top["routing"], "routing", _ROUTING)
            if (node := routing.get("default_provider")) is not None:
                default = self._doc.text(node, "default_provider")
                if all(default != provider.name for provider in providers):
                    self._doc.fail(node, f"default_provider is {default!r}, but no provider has that name")
        self._check_names(providers)
        return Catalog(tuple(providers), default)

    def _provider(self, node: Node) -> ProviderSpec:
        fields = self._doc.fields(node, "a provider", _PROVIDER)
        name = self._required(fields, node, "a provider", "name")
        if not _PROVIDER_NAME.fullmatch(name):
            self._doc.fail(fields["name"], f"the name {name!r} should be letters, digits and . _ - only")
        kind = self._doc.text(fields["kind"], "kind") if "kind" in fields else "openai"
        if kind not in KINDS:
            self._doc.fail(fields["kind"], f"kind {kind!r} is not known; it may be {', '.join(KINDS)}")
        headers, written = self._headers(fields.get("headers"))
        what = f"provider {name!r}"
        models = tuple(self._model(item, headers, what) for item in self._doc.items(fields.get("models"), "models"))
        if (twice := _first_twice([model.id for model in models])) is not None:
            self._doc.fail(fields["models"], f"{what} has two models with the id {twice!r}")
        endpoints = self._provider_endpoints(fields, node, what, headers, models)
        return ProviderSpec(
            name=name,
            kind=kind,
            endpoints=endpoints,
            models=models,
            lists="models" not in fields,
            operations=self._operations(fields, ALL),
            written_headers=written,
            enabled=self._enabled(fields),
        )

    def _provider_endpoints(
        self, fields: dict[str, Node], node: Node, what: str, headers: Headers, models: tuple[ModelSpec, ...]
    ) -> tuple[EndpointSpec, ...]:
        if "base_url" in fields:
            if "endpoints" in fields:
                self._doc.fail(fields["endpoints"], f"{what} has base_url and endpoints; give one of them")
            return (self._endpoint(fields, node, headers),)
        for key in ("weight", "discover"):
            if key in fields:
                self._doc.fail(fields[key], f"{key} of {what} belongs to a base_url or to an entry of endpoints")
        endpoints = self._endpoints(fields, headers)
        if not endpoints and not (models and all(model.endpoints for model in models)):
            self._doc.fail(node, f"{what} needs a base_url or endpoints")
        return endpoints

    def _endpoints(self, fields: dict[str, Node], inherited: Headers) -> tuple[EndpointSpec, ...]:
        found: list[EndpointSpec] = []
        for node in self._doc.items(fields.get("endpoints"), "endpoints"):
            entry = self._doc.fields(node, "an endpoint", _ENDPOINT)
            own, _ = self._headers(entry.get("headers"))
            spec = self._endpoint(entry, node, _merged(inherited, own))
            if any((spec.base_url, spec.headers) == (other.base_url, other.headers) for other in found):
                self._doc.fail(node, "the same endpoint appears twice")
            found.append(spec)
        if "endpoints" in fields and not found:
            self._doc.fail(fields["endpoints"], "endpoints is empty")
        return tuple(found)

    def _endpoint(self, fields: dict[str, Node], node: Node, headers: Headers) -> EndpointSpec:
        url = self._required(fields, node, "an endpoint", "base_url")
        try:
            address = parse_address(url)
        except ValueError as error:
            reason = re.sub(r"//[^@/]*@", "//***@", str(error))
            self._doc.fail(fields["base_url"], f"base_url: {reason}")
        discover = self._doc.text(fields["discover"], "discover") if "discover" in fields else ""
        if discover not in ("", "dns", "kubernetes"):
            self._doc.fail(fields["discover"], f"discover {discover!r} should be dns or kubernetes")
        if discover and address.unix:
            self._doc.fail(fields["discover"], "a unix socket has nothing to discover")
        weight = 1
        if "weight" in fields:
            weight = self._doc.integer(fields["weight"], "weight", 0, WEIGHT_MOST)
        return EndpointSpec(base_url=url, weight=weight, headers=headers, discover=discover)

    def _headers(self, node: Node | None) -> tuple[Headers, Headers]:
        """(with the environment's values, as they may be stored and shown)."""
        if node is None:
            return (), ()
        real: list[tuple[str, str]] = []
        shown: list[tuple[str, str]] = []
        for name, value in self._doc.mapping(node, "headers").items():
            if not _HEADER_NAME.fullmatch(name):
                self._doc.fail(value, f"{name!r} is no name of an HTTP header")
            if name.lower() in _OUR_HEADERS:
                self._doc.fail(value, f"the header {name} is set by the server itself")
            if any(name.lower() == other.lower() for other, _ in real):
                self._doc.fail(value, f"the header {name} appears twice")
            written = self._doc.written(value, f"the header {name}")
            expanded = self._doc.expand(value, written).strip()
            if not expanded.isascii() or any(ord(letter) < 32 or ord(letter) == 127 for letter in expanded):
                self._doc.fail(value, f"the header {name} has a line break, control or non-ASCII character")
            real.append((name, expanded))
            shown.append((name, without_secrets(written)))
        return tuple(real), tuple(shown)

    def _model(self, node: Node, headers: Headers, what: str) -> ModelSpec:
        fields = self._doc.fields(node, f"a model of {what}", _MODEL)
        id = self._required(fields, node, f"a model of {what}", "id")
        self._model_name(fields["id"], id)
        self._ids.add(id)
        context = fields.get("context_length")
        single = fields.get("single_tool_choice")
        return ModelSpec(
            id=id,
            served_name=self._doc.text(fields["served_name"], "served_name") if "served_name" in fields else id,
            operations=self._operations(fields, DEFAULT_OPERATIONS),
            endpoints=self._endpoints(fields, headers),
            aliases=self._names(fields.get("aliases"), id, "alias"),
            fallbacks=self._names(fields.get("fallbacks"), id, "fallback"),
            context_length=self._doc.integer(context, "context_length", 1, 2**31) if context else None,
            price=self._price(fields.get("price")),
            enabled=self._enabled(fields),
            single_tool_choice=self._doc.boolean(single, "single_tool_choice") if single else False,
        )

    def _names(self, node: Node | None, model: str, what: str) -> tuple[str, ...]:
        names: list[str] = []
        for item in self._doc.items(node, f"{what}es" if what == "alias" else f"{what}s"):
            name = self._doc.text(item, f"an {what}" if what == "alias" else f"a {what}")
            self._model_name(item, name)
            if what == "alias":
                if self._aliases.setdefault(name, model) != model or name in names:
                    self._doc.fail(item, f"the alias {name!r} appears twice")
            elif name in names:
                self._doc.fail(item, f"the fallback {name!r} appears twice")
            self._named.append((item, name, what))
            names.append(name)
        return tuple(names)

    def _model_name(self, node: Node, name: str) -> None:
        if not _MODEL_NAME.fullmatch(name):
            self._doc.fail(node, f"{name!r} should be at most 255 letters, digits and . _ : / @ + -")

    def _operations(self, fields: dict[str, Node], default: frozenset[str]) -> frozenset[str]:
        node = fields.get("capabilities")
        if node is None:
            return default
        found: set[str] = set()
        for item in self._doc.items(node, "capabilities"):
            word = self._doc.text(item, "a capability")
            if word not in CAPABILITIES:
                self._doc.fail(item, f"capability {word!r} is not known; it may be {', '.join(CAPABILITIES)}")
            found.add(CAPABILITIES[word])
        if not found:
            self._doc.fail(node, "capabilities is empty; leave it out, or name one")
        return frozenset(found)

    def _price(self, node: Node | None) -> Price:
        """Cached input costs what input costs unless it is said otherwise."""
        if node is None:
            return Price()
        amounts: dict[str, int] = {}
        for name, value in self._doc.fields(node, "price", _PRICE).items():
            try:
                amounts[name] = money.micros(self._doc.decimal(value, f"the price of {name}"))
            except ValueError as error:
                self._doc.fail(value, f"the price of {name}: {error}")
        amounts.setdefault("cached_input", amounts.get("input", 0))
        return Price(**amounts)

    def _enabled(self, fields: dict[str, Node]) -> bool:
        return self._doc.boolean(fields["enabled"], "enabled") if "enabled" in fields else True

    def _required(self, fields: dict[str, Node], node: Node, what: str, key: str) -> str:
        if key not in fields:
            self._doc.fail(node, f"{what} needs {key!r}")
        return self._doc.text(fields[key], key)

    def _check_names(self, providers: list[ProviderSpec]) -> None:
        """Aliases shadow nothing; fallbacks exist (where that can be known) and do not go in circles."""
        listing = any(provider.lists for provider in providers)
        for node, name, what in self._named:
            if what == "alias" and name in self._ids:
                self._doc.fail(node, f"the alias {name!r} is also the id of a model")
            if what == "fallback" and not listing and name not in self._ids and name not in self._aliases:
                self._doc.fail(node, f"the fallback {name!r} is no model's id or alias")
        graph = {
            model.id: [self._aliases.get(name, name) for name in model.fallbacks]
            for provider in reversed(providers)
            for model in provider.models
        }
        if (circle := _circle(graph)) is not None:
            node = next(item for item, name, what in self._named if what == "fallback" and name in circle)
            self._doc.fail(node, f"fallbacks go in a circle: {' -> '.join(circle)}")


def _merged(inherited: Headers, own: Headers) -> Headers:
    names = {name.lower() for name, _ in own}
    return (*(pair for pair in inherited if pair[0].lower() not in names), *own)


def _first_twice(names: list[str]) -> str | None:
    return next((name for place, name in enumerate(names) if name in names[:place]), None)


def _circle(graph: dict[str, list[str]]) -> list[str] | None:
    """Some circle in `graph`, its first name repeated at its end; None where there is none."""
    left = dict(graph)
    while ended := [name for name, others in left.items() if not any(other in left for other in others)]:
        for name in ended:
            del left[name]
    if not left:
        return None
    trail = [next(iter(left))]
    while True:
        following = next(other for other in left[trail[-1]] if other in left)
        if following in trail:
            return [*trail[trail.index(following) :], following]
        trail.append(following)
