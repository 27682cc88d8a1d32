from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indigo.features.models import providers_file
from indigo.features.models.catalog import Catalog
from indigo.features.models.marked_yaml import ProvidersFileError
from indigo.gateway.operations import ALL, CHAT, COMPLETIONS, EMBEDDINGS
from indigo.gateway.ports import Price

ENVIRON = {"VLLM_INTERNAL_KEY": "s3cret", "VLLM_SERVED_NAME": "jan-v1", "EMPTY": "", "BREAK": "a\r\nX: y"}

DOCUMENTED = """\
providers:
  - name: vllm-local
    kind: openai
    base_url: http://vllm-llama:8000
    headers:
      Authorization: "Bearer ${VLLM_INTERNAL_KEY}"
    models:
      - id: jan-v1-4b
        served_name: ${VLLM_SERVED_NAME}
        capabilities: [chat, completions, embeddings]
routing:
  default_provider: vllm-local
"""


def parse(text: str, known: frozenset[str] = frozenset()) -> Catalog:
    return providers_file.parse(text, "providers.yaml", ENVIRON, known)


def one_model(lines: str) -> str:
    return (
        "providers:\n- name: p\n  base_url: http://h\n  models:\n  - id: m\n"
        + "".join(f"    {line}\n" for line in lines.splitlines())
        + "  - id: other\n"
    )


def one_provider(lines: str) -> str:
    return "providers:\n- name: p\n" + "".join(f"  {line}\n" for line in lines.splitlines())


@pytest.mark.promise("P50")
def test_the_documented_form_is_read_with_the_environment_expanded() -> None:
    catalog = parse(DOCUMENTED)
    (provider,) = catalog.providers
    (endpoint,) = provider.endpoints
    (model,) = provider.models
    assert catalog.default_provider == "vllm-local"
    assert endpoint.base_url == "http://vllm-llama:8000"
    assert endpoint.headers == (("Authorization", "Bearer s3cret"),)
    assert (model.id, model.served_name) == ("jan-v1-4b", "jan-v1")
    assert model.operations == {CHAT, COMPLETIONS, EMBEDDINGS}
    assert not provider.lists


@pytest.mark.promise("P50")
def test_the_example_of_the_documentation_is_valid() -> None:
    example = Path(__file__).parents[3] / "deploy" / "providers.example.yaml"
    catalog = providers_file.parse(
        providers_file.read(example), "example", {"VLLM_INTERNAL_KEY": "k", "OPENAI_API_KEY": "k"}
    )
    assert len(catalog.providers) >= 3


@pytest.mark.promise("P50")
def test_every_key_of_a_model_arrives() -> None:
    catalog = parse(
        one_model(
            "served_name: S\naliases: [a, b]\nfallbacks: [other]\ncontext_length: ${CTX:-4096}\n"
            "price: {input: 0.15, output: 1, request: 0.000001}\nsingle_tool_choice: true\nenabled: no\n"
            "endpoints:\n- {base_url: 'http://x/v1', weight: 3, headers: {X-Key: k}}\n"
            "- {base_url: 'https://y', discover: dns}"
        ).replace("enabled: no", "enabled: false")
    )
    model, other = catalog.providers[0].models
    assert (model.served_name, model.aliases, model.fallbacks) == ("S", ("a", "b"), ("other",))
    assert model.context_length == 4096
    assert model.price == Price(input=150_000, cached_input=150_000, output=1_000_000, request=1)
    assert model.single_tool_choice
    assert not model.enabled
    assert [(one.base_url, one.weight, one.discover) for one in model.endpoints] == [
        ("http://x/v1", 3, ""),
        ("https://y", 1, "dns"),
    ]
    assert other.operations == {CHAT, COMPLETIONS}


def test_a_provider_without_models_offers_what_it_lists() -> None:
    (provider,) = parse(one_provider("base_url: http://ollama:11434")).providers
    assert provider.lists
    assert provider.operations == ALL


def test_headers_of_an_endpoint_replace_the_providers_of_the_same_name() -> None:
    (provider,) = parse(
        one_provider(
            "headers: {Authorization: Bearer a, X-Team: t}\n"
            "endpoints:\n- {base_url: 'http://x', headers: {authorization: Bearer b}}"
        )
    ).providers
    assert provider.endpoints[0].headers == (("X-Team", "t"), ("authorization", "Bearer b"))


@pytest.mark.threat("T37")
@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Bearer ${VLLM_INTERNAL_KEY}", "Bearer ${VLLM_INTERNAL_KEY}"),
        ("Bearer sk-literal", "***"),
        ("${VLLM_INTERNAL_KEY:-sk-default}", "${VLLM_INTERNAL_KEY}"),
        ("sk-${VLLM_INTERNAL_KEY}", "***${VLLM_INTERNAL_KEY}"),
    ],
)
def test_what_may_be_stored_of_a_header_holds_no_secret(written: str, shown: str) -> None:
    (provider,) = parse(one_provider(f'base_url: http://h\nheaders: {{X-Key: "{written}"}}')).providers
    assert provider.written_headers == (("X-Key", shown),)
    assert "s3cret" not in repr(provider)


@pytest.mark.parametrize(
    ("written", "expanded"),
    [
        ("${VLLM_SERVED_NAME}", "jan-v1"),
        ("a-${VLLM_SERVED_NAME}-b", "a-jan-v1-b"),
        ("${UNSET:-plain}", "plain"),
        ("${EMPTY:-plain}", "plain"),
        ("${UNSET:-a:-b}", "a:-b"),
        ("$${VLLM_SERVED_NAME}", "${VLLM_SERVED_NAME}"),
        ("$5", "$5"),
    ],
)
def test_references_to_the_environment_are_expanded_as_a_shell_would(written: str, expanded: str) -> None:
    (provider,) = parse(one_model(f'served_name: "{written}"')).providers
    assert provider.models[0].served_name == expanded


BAD = [
    ("providers: [", 1, "not YAML"),
    ("providers:\n\t- name: x", 2, "not YAML"),
    ("[1, 2]", 1, "the file should be a mapping"),
    ("provider: []", 1, "the file has no 'provider'"),
    ("providers: 5", 1, "providers should be a list"),
    ("providers:\n- 5", 2, "a provider should be a mapping"),
    ("providers:\n- name: p", 2, "needs a base_url or endpoints"),
    ("providers:\n- base_url: http://h", 2, "needs 'name'"),
    (one_provider("base_url: http://h\nbase_url: http://i"), 4, "'base_url' appears twice"),
    (one_provider("base_url: http://h\ncolour: red"), 4, "has no 'colour'"),
    (one_provider("base_url: ftp://h"), 3, "is not an http://"),
    (one_provider("base_url: http://u:hunter2@h"), 3, "must not carry a user"),
    (one_provider("base_url: http://h:99999"), 3, "base_url"),
    (one_provider("base_url: http://h\nendpoints: [{base_url: 'http://i'}]"), 4, "give one of them"),
    (one_provider("endpoints: []"), 3, "endpoints is empty"),
    (one_provider("endpoints:\n- {base_url: 'http://i'}\n- {base_url: 'http://i'}"), 5, "appears twice"),
    (one_provider("weight: 2\nendpoints:\n- {base_url: 'http://i'}"), 3, "belongs to a base_url"),
    (one_provider("base_url: http://h\ndiscover: magic"), 4, "should be dns or kubernetes"),
    (one_provider("base_url: unix:/s\ndiscover: dns"), 4, "nothing to discover"),
    (one_provider("base_url: http://h\nkind: anthropic"), 4, "kind 'anthropic' is not known"),
    (one_provider("base_url: http://h\nheaders: {Host: x}"), 4, "set by the server itself"),
    (one_provider("base_url: http://h\nheaders: {'X Y': x}"), 4, "no name of an HTTP header"),
    (one_provider("base_url: http://h\nheaders: {X: ä}"), 4, "line break, control or non-ASCII"),
    (one_provider('base_url: http://h\nheaders: {X: "a\\r\\nY: b"}'), 4, "line break"),
    (one_provider("base_url: http://h\nheaders: {X: '${BREAK}'}"), 4, "line break"),
    (one_provider("base_url: http://h\nheaders: {X: a, x: b}"), 4, "appears twice"),
    (one_provider("base_url: http://h\nheaders: {X: 5}"), 4, "should be text"),
    (one_provider("base_url: http://h\nheaders: {X: '${NOPE}'}"), 4, "NOPE is not set"),
    (one_provider("base_url: http://h\nheaders: {X: '${NOPE'}"), 4, "a reference should be"),
    (one_provider("base_url: http://h\nheaders: {X: '${a b}'}"), 4, "a reference should be"),
    (one_provider("base_url: http://h\nweight: -1"), 4, "weight should be a whole number"),
    (one_provider("base_url: http://h\nweight: .nan"), 4, "weight should be a whole number"),
    (one_provider("base_url: http://h\nweight: 1.5"), 4, "weight should be a whole number"),
    (one_provider("base_url: http://h\nweight: 'x'"), 4, "weight should be a whole number"),
    (one_provider("base_url: http://h\nenabled: 3"), 4, "true or false"),
    (one_provider("base_url: http://h\n") + "- name: p\n  base_url: http://i\n", 4, "second provider"),
    (one_provider("base_url: http://h") + "routing: {default_provider: q}", 4, "no provider has that name"),
    (one_model("price: {input: -1}"), 6, "0 or more"),
    (one_model("price: {input: .nan}"), 6, "0 or more"),
    (one_model("price: {input: .inf}"), 6, "0 or more"),
    (one_model("price: {input: 0.0000001}"), 6, "six decimal places"),
    (one_model("price: {inputs: 1}"), 6, "price has no 'inputs'"),
    (one_model("capabilities: [sing]"), 6, "capability 'sing' is not known"),
    (one_model("capabilities: []"), 6, "capabilities is empty"),
    (one_model("context_length: 0"), 6, "context_length should be a whole number"),
    (one_model("context_length: true"), 6, "context_length should be a whole number"),
    (one_model("served_name: 5"), 6, "should be text"),
    (one_model("served_name: '${EMPTY}'"), 6, "is empty"),
    (one_model("aliases: [other]"), 6, "also the id of a model"),
    (one_model("aliases: [m]"), 6, "also the id of a model"),
    (one_model("aliases: [a, a]"), 6, "alias 'a' appears twice"),
    (one_model("aliases: ['a b']"), 6, "should be at most 255"),
    (one_model("fallbacks: [nope]"), 6, "no model's id or alias"),
    (one_model("fallbacks: [m]"), 6, "in a circle: m -> m"),
    (one_model("fallbacks: [other]") + "    fallbacks: [m]\n", 6, "in a circle"),
    (one_model("aliases: [a]") + "    fallbacks: [a]\n  - id: m\n", 5, "two models with the id 'm'"),
    (one_model("aliases: [a]") + "    aliases: [a]\n", 8, "alias 'a' appears twice"),
    ("a: &a [1]\nb: *a", 2, "aliases are not supported"),
    ("x: " + "[" * 40 + "]" * 40, 1, "nested too deeply"),
    ("providers:\n- !!python/object:os.system {}", 2, "a provider"),
    ("? {a: b}\n: c", 1, "should be text"),
    ("a: \x00", 1, "not YAML"),
]


@pytest.mark.promise("P50")
@pytest.mark.parametrize(("text", "line", "reason"), BAD)
def test_a_bad_file_is_refused_with_file_line_and_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(ProvidersFileError) as caught:
        parse(text)
    assert reason in caught.value.message
    if "in a circle" not in reason:
        assert caught.value.message.startswith(f"providers.yaml, line {line}: "), caught.value.message
    assert "hunter2" not in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProvidersFileError, match=r"nope\.yaml: cannot be read"):
        providers_file.read(tmp_path / "nope.yaml")
    bad = tmp_path / "latin.yaml"
    bad.write_bytes(b"providers: []\n# \xe4\n")
    with pytest.raises(ProvidersFileError, match="line 2: it is not UTF-8"):
        providers_file.read(bad)


def test_too_large_a_file_is_refused() -> None:
    with pytest.raises(ProvidersFileError, match="larger than"):
        parse("#" * 1_100_000)
    with pytest.raises(ProvidersFileError, match="holds too much"):
        parse("providers: [" + "1," * 120_000 + "]")


def test_an_empty_file_offers_nothing() -> None:
    assert parse("# nothing yet\n") == Catalog()


def test_a_fallback_may_name_what_is_offered_elsewhere_or_only_listed() -> None:
    text = one_model("fallbacks: [demo]")
    assert parse(text, frozenset({"demo"})).providers[0].models[0].fallbacks == ("demo",)
    assert parse(text + "- name: lists\n  base_url: http://l\n").providers[0].models[0].fallbacks == ("demo",)


def test_many_models_with_crossing_fallbacks_are_judged_quickly() -> None:
    count = 300
    models = "".join(
        f"  - id: m{n}\n    fallbacks: [{', '.join(f'm{k}' for k in range(n + 1, min(n + 4, count)))}]\n"
        for n in range(count)
    )
    assert len(parse("providers:\n- name: p\n  base_url: http://h\n  models:\n" + models).providers[0].models)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="providers:-\n nameulhtpb_/[]{}#&*!|>'\"$%@`,?0159.~\t", max_size=120))
def test_no_text_whatever_does_more_than_be_read_or_be_refused(text: str) -> None:
    with contextlib.suppress(ProvidersFileError):
        parse(text)
