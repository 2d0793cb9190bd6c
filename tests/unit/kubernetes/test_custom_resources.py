"""CustomResourceDefinitions: valid, structural, and taking what `weft apply` takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tests.kubernetes_documents import (
    ROOT,
    Document,
    examples,
    manifests_of_pages,
    not_structural,
    refusals,
    schema_of,
)

from weft.cli.main import run
from weft.kubernetes.custom_resources import GROUP, custom_kinds, custom_resource_definitions
from weft.model.resource import KINDS, canonical_kind

DEFINITIONS = {each["spec"]["names"]["kind"]: each for each in custom_resource_definitions()}
EXAMPLES = examples()
MANIFESTS = EXAMPLES | manifests_of_pages()

MAX_APPLIED_BYTES = 256 * 1024
"""Of what `kubectl apply` writes down in an annotation."""

SHORTEST, NEWEST = "1.30", "1.37"


def resource(kind: str, spec: Any, name: str = "one", **metadata: Any) -> Document:
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


def refused(kind: str, spec: Any) -> list[str]:
    return refusals(DEFINITIONS[kind], resource(kind, spec))


def test_every_kind_of_the_mesh_is_one_of_the_cluster() -> None:
    assert set(KINDS) <= set(DEFINITIONS)


@pytest.mark.parametrize("version", [SHORTEST, NEWEST])
@pytest.mark.parametrize("kind", DEFINITIONS)
def test_definitions_are_as_kubernetes_has_them(kind: str, version: str) -> None:
    kubernetes_validate.validate(DEFINITIONS[kind], version, strict=True)


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_schemas_are_structural(kind: str) -> None:
    schema = schema_of(DEFINITIONS[kind])
    assert list(not_structural(schema)) == []
    restricted = schema["properties"]["metadata"]["properties"].keys()
    assert restricted == {"name"}, "Kubernetes lets nothing else of it be restricted"


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_kubectl_can_apply_definitions(kind: str) -> None:
    assert len(json.dumps(DEFINITIONS[kind])) < MAX_APPLIED_BYTES / 4


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_names_are_those_that_kubernetes_and_weft_understand(kind: str) -> None:
    definition = DEFINITIONS[kind]
    names = definition["spec"]["names"]
    assert definition["metadata"]["name"] == f"{names['plural']}.{GROUP}"
    assert names["singular"] == kind.lower()
    assert names["listKind"] == f"{kind}List"
    assert names["categories"] == ["weft"]
    if kind in KINDS:
        assert canonical_kind(names["plural"]) == kind


def test_no_name_stands_for_two_kinds() -> None:
    names = [each["spec"]["names"] for each in DEFINITIONS.values()]
    all_of_them = [name for each in names for name in (each["plural"], each["singular"], *each["shortNames"])]
    assert len(all_of_them) == len(set(all_of_them))


def _columns() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind, definition in DEFINITIONS.items():
        for column in definition["spec"]["versions"][0]["additionalPrinterColumns"]:
            yield kind, column


_STEP = re.compile(r"\.(?P<name>\w+)|\[(?P<index>0|\?\(@\.type==\"\w+\"\))\]")


@pytest.mark.parametrize(
    ("kind", "column"), [pytest.param(*each, id=f"{each[0]}-{each[1]['name']}") for each in _columns()]
)
def test_columns_show_fields_there_are(kind: str, column: dict[str, Any]) -> None:
    path, kinds = column["jsonPath"], {"date": "string"}
    assert _STEP.sub("", path) == ""
    if path == ".metadata.creationTimestamp":
        return
    schema = schema_of(DEFINITIONS[kind])
    for step in _STEP.finditer(path):
        schema = schema["items"] if step["index"] else schema["properties"][step["name"]]
    if column["type"] == "string":
        assert schema["type"] in {"string", "array"}
    else:
        assert schema["type"] == kinds.get(column["type"], column["type"])


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_columns_begin_with_what_is_declared_and_end_with_what_became_of_it(kind: str) -> None:
    columns = DEFINITIONS[kind]["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [each["name"] for each in columns[-3:]] == ["Ready", "Reason", "Age"]
    assert len(columns) > 3
    assert len({each["name"] for each in columns}) == len(columns)


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_every_kind_has_a_status_of_its_own(kind: str) -> None:
    [version] = DEFINITIONS[kind]["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    conditions = schema_of(DEFINITIONS[kind])["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@pytest.mark.parametrize("source", MANIFESTS)
def test_the_cluster_takes_what_examples_and_pages_declare(source: str) -> None:
    for document in MANIFESTS[source]:
        assert refusals(DEFINITIONS[document["kind"]], _in_a_cluster(document)) == []


def _in_a_cluster(document: Document) -> Document:
    """The same with the values of a Secret where a cluster has them."""
    if document["kind"] != "Secret":
        return document
    spec = document["spec"]
    data = {key: {"secretKeyRef": {"name": "provider", "key": "api-key"}} for key in spec["data"]}
    return {**document, "spec": {**spec, "data": data}}


def _with_unknown_fields(value: Any) -> Iterator[Any]:
    """`value` with a field more, in one mapping after another."""
    if isinstance(value, dict):
        yield {**value, "unknownField": "x"}
        for key, inside in value.items():
            yield from ({**value, key: each} for each in _with_unknown_fields(inside))
    elif isinstance(value, list):
        for index, inside in enumerate(value):
            yield from ([*value[:index], each, *value[index + 1 :]] for each in _with_unknown_fields(inside))


MAPS = {"labels", "environment", "set", "add", "data", "secretEnvironment"}
"""Fields whose members have any names."""


def _without_maps(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_maps(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_maps(each) for key, each in value.items() if key not in MAPS}
    return value


@pytest.mark.parametrize("source", EXAMPLES)
def test_an_unknown_field_is_refused_wherever_it_is(source: str) -> None:
    tried = 0
    for document in EXAMPLES[source]:
        spec = _without_maps(document["spec"])
        for wrong in _with_unknown_fields(spec):
            tried += 1
            assert any("unknownField" in each for each in refused(document["kind"], wrong)), wrong
    assert tried


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Agent", {"port": 70000}),
        ("Agent", {"protocol": "smtp"}),
        ("Agent", {"health": {"interval": 5}}),
        ("Agent", {"health": {"interval": "5"}}),
        ("Agent", {"drainTimeout": "1.5ms"}),
        ("Agent", {"capabilities": ["Summarize"]}),
        ("Agent", {"labels": {"a": 1}}),
        ("Agent", {"run": {"command": []}}),
        ("Route", {"destination": {"type": "a"}}),
        ("Route", {"destination": {}, "rules": [{}]}),
        ("Route", {"destination": {"type": "a", "capability": "b"}, "rules": [{}]}),
        ("Route", {"destination": {"type": "a"}, "rules": [{"match": [{"path": {}}]}]}),
        ("Route", {"destination": {"type": "a"}, "rules": [{"fault": {}}]}),
        ("Route", {"destination": {"type": "a"}, "rules": [{"mirror": {"percent": 5}}]}),
        ("TrafficPolicy", {"loadBalancing": {"policy": "luck"}}),
        ("AccessPolicy", {}),
        ("AccessPolicy", {"effect": "allow", "default": "deny"}),
        ("AccessPolicy", {"effect": "allow", "from": [{}]}),
        ("AccessPolicy", {"effect": "allow", "to": [{"type": "a", "topic": "b"}]}),
        ("AccessPolicy", {"effect": "allow", "to": [{"topic": "b", "version": "1"}]}),
        ("AccessPolicy", {"effect": "allow", "to": [{"version": "1"}]}),
        ("AccessPolicy", {"effect": "allow", "rules": [{}]}),
        ("Secret", {"data": {}}),
        ("Secret", {"data": {"key": "in plain text"}}),
        ("Secret", {"data": {"key": {"fromEnv": "KEY"}}}),
        ("Secret", {"data": {"key": {"secretKeyRef": {"name": "provider"}}}}),
        ("Topic", {"partitions": 17}),
        ("Topic", {"partitions": "4"}),
        ("ModelPool", {"providers": []}),
        ("ModelPool", {"providers": [{"name": "a", "limits": {"concurrency": 0}}]}),
        ("Budget", {"usd": 0}),
        ("Tool", {}),
        ("Telemetry", {"tracing": {"samplingPercent": 101}}),
        ("ExternalAgent", {"endpoints": []}),
        ("ExternalAgent", {"endpoints": ["a:1"], "tls": "mutual"}),
    ],
)
def test_the_cluster_refuses_by_itself_what_is_wrong_in_one_place(kind: str, spec: Any) -> None:
    assert refused(kind, spec) != []


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Topic", {"deadLetter": None}),
        ("Topic", {"maxAge": None}),
        ("TrafficPolicy", {"target": {"type": None, "capability": "summarize"}}),
        ("Telemetry", {"tracing": {"samplingPercent": 5}}),
        ("ExternalAgent", {"endpoints": ["10.0.0.7:80", "[fd00::7]:80"], "capabilities": ["find"]}),
        ("Agent", {"drainTimeout": "1.500s", "health": {"path": ""}}),
        ("Budget", {"tokens": 10**15}),
        ("AccessPolicy", {"effect": "allow", "to": [{"type": "a", "version": "1", "capability": "b"}]}),
        ("Secret", {"data": {"key": {"secretKeyRef": {"name": "provider", "key": "api-key"}}}}),
    ],
)
def test_the_cluster_takes_what_the_mesh_takes(kind: str, spec: Any) -> None:
    assert refused(kind, spec) == []


@pytest.mark.parametrize("name", ["With-Capitals", "with.dots", "-a", "a" * 64])
def test_names_are_those_the_mesh_can_have(name: str) -> None:
    schema = schema_of(DEFINITIONS["Agent"])["properties"]["metadata"]["properties"]["name"]
    assert len(name) > schema["maxLength"] or re.fullmatch(schema["pattern"], name) is None


def test_only_where_null_means_something_it_is_kept() -> None:
    def nullable(schema: Any, where: str) -> Iterator[str]:
        if isinstance(schema, dict):
            if schema.get("nullable"):
                yield where
            for key, inside in schema.items():
                yield from nullable(inside, f"{where}.{key}")

    found = [
        each for kind, definition in DEFINITIONS.items() for each in nullable(schema_of(definition), kind)
    ]
    assert found == ["Topic.properties.spec.properties.deadLetter"]


def test_the_cluster_takes_what_its_own_page_shows() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    blocks = [part.partition("```")[0] for part in page.split("```yaml\n")[1:]]
    resources = [yaml.safe_load(each) for each in blocks if "\napiVersion: weft.dev/" in each]
    shown = {each["kind"]: each for each in resources}
    assert {"Secret", "AgentDeployment"} <= set(shown)
    for kind, each in shown.items():
        assert refusals(DEFINITIONS[kind], each) == []


def test_the_command_writes_every_definition_as_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["kubernetes", "crds"]) == 0
    written = capsys.readouterr().out
    assert list(yaml.safe_load_all(written)) == custom_resource_definitions()
    assert "&id" not in written


def test_the_command_writes_every_definition_as_one_list_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["kubernetes", "crds", "-o", "json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert (written["apiVersion"], written["kind"]) == ("v1", "List")
    assert written["items"] == custom_resource_definitions()


def test_definitions_are_made_anew_each_time_so_that_nobody_changes_anothers() -> None:
    first = custom_resource_definitions()
    schema_of(first[0])["properties"]["status"].clear()
    assert custom_resource_definitions() == list(DEFINITIONS.values())
    assert [each.name for each in custom_kinds()] == list(DEFINITIONS)
