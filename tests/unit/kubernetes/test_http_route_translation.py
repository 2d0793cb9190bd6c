"""HTTPRoutes with a Service for a parent, as Routes of a mesh."""

from __future__ import annotations

from typing import Any

import pytest

from weft.kubernetes.agent_service import AgentService, agent_service
from weft.kubernetes.http_route import duration_seconds
from weft.kubernetes.http_route_translation import HttpRouteTranslation, Verdict, translated_routes
from weft.model.manifest import parse_manifest
from weft.model.yaml_tree import dump

Document = dict[str, Any]

NAMESPACE = "texts"
SUMMARIZER = AgentService(NAMESPACE, "summarizer", "summarizer", ports=(("http", 80),))
SECOND = AgentService(NAMESPACE, "summarizer-v2", "summarizer", "2", ports=(("http", 80),))
CRITIC = AgentService(NAMESPACE, "critic", "critic", ports=(("http", 80),))
ALL = (SUMMARIZER, SECOND, CRITIC)

PARENT = {"group": "", "kind": "Service", "name": "summarizer"}
TO_ITSELF = {"backendRefs": [{"name": "summarizer", "port": 80}]}
NO_RULE = {"name": "no-rule-matches", "fault": {"abort": {"status": 404}}}


def http_route(
    *rules: Document,
    name: str = "split",
    namespace: str = NAMESPACE,
    created: str = "2026-01-01T00:00:00Z",
    parents: tuple[Document, ...] = (PARENT,),
    **spec: Any,
) -> Document:
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": {"parentRefs": list(parents), "rules": list(rules), **spec},
    }


def backend(name: str, weight: int = 1, **more: Any) -> Document:
    return {"name": name, "port": 80, "weight": weight, **more}


def path(value: str, how: str = "PathPrefix", **more: Any) -> Document:
    return {"path": {"type": how, "value": value}, **more}


def rules_of(translation: HttpRouteTranslation, agent_type: str = "summarizer") -> list[Document]:
    """The rules of the only Route, in the form in which they are declared, and taken by `weft apply`."""
    assert set(translation.routes) == {agent_type}
    spec = translation.routes[agent_type].spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude_none=True
    )
    route = {"apiVersion": "weft.dev/v1alpha1", "kind": "Route", "metadata": {"name": "route"}, "spec": spec}
    parse_manifest(dump([route]))
    assert spec["destination"] == {"type": agent_type}
    rules: list[Document] = spec["rules"]
    return rules


def translated(*rules: Document) -> list[Document]:
    """What becomes of rules that are all understood."""
    translation = translated_routes([http_route(*rules)], ALL)
    [verdict] = verdicts(translation)
    assert verdict.refusal is None
    assert not verdict.dropped
    return rules_of(translation)


def verdicts(translation: HttpRouteTranslation, name: str = "split") -> tuple[Verdict, ...]:
    return translation.verdicts[NAMESPACE, name]


def refusal_of(*rules: Document) -> str:
    translation = translated_routes([http_route(*rules)], ALL)
    [verdict] = verdicts(translation)
    assert verdict.refusal is not None
    assert verdict.refusal.reason == "UnsupportedValue"
    assert not translation.routes
    return verdict.refusal.message


def test_calls_are_split_by_the_weights_of_backends_which_stand_for_types_and_versions() -> None:
    [rule] = translated(
        {"backendRefs": [backend("summarizer", 8), backend("summarizer-v2", 1), backend("critic", 1)]}
    )
    assert rule["split"] == [
        {"weight": 8},
        {"version": "2", "weight": 1},
        {"type": "critic", "weight": 1},
    ]


def test_a_backend_that_is_the_parent_itself_is_no_split() -> None:
    [rule] = translated(TO_ITSELF)
    assert rule == {"name": "split-1"}


def test_weights_are_made_to_fit_and_backends_of_the_same_version_are_one() -> None:
    [rule] = translated(
        {"backendRefs": [backend("critic", 600_000), backend("critic", 400_000), backend("summarizer", 10)]}
    )
    assert rule["split"] == [{"type": "critic", "weight": 1000}, {"weight": 1}]


def test_a_backend_without_weight_gets_no_calls() -> None:
    [rule] = translated({"backendRefs": [backend("summarizer", 0), backend("summarizer-v2")]})
    assert rule["split"] == [{"version": "2", "weight": 1}]


@pytest.mark.parametrize("backends", [[], [backend("summarizer", 0)]])
def test_calls_that_a_rule_leads_nowhere_are_answered_with_500(backends: list[Document]) -> None:
    [rule] = translated({"backendRefs": backends})
    assert rule["fault"] == {"abort": {"status": 500}}


def test_the_share_of_a_backend_that_is_not_there_is_answered_with_500() -> None:
    document = http_route({"backendRefs": [backend("summarizer", 3), backend("absent", 1)]})
    translation = translated_routes([document], ALL)
    [rule] = rules_of(translation)
    assert rule["fault"] == {"abort": {"status": 500, "percent": 25.0}}
    assert "split" not in rule
    [verdict] = verdicts(translation)
    assert [each.reason for each in verdict.unresolved] == ["BackendNotFound"]
    assert "Service 'absent' of namespace 'texts' is not there" in verdict.unresolved[0].message


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ({"name": "absent", "port": 80}, "BackendNotFound"),
        ({"name": "summarizer", "port": 81}, "BackendNotFound"),
        ({"name": "summarizer", "namespace": "elsewhere", "port": 80}, "BackendNotFound"),
        ({"name": "plain", "port": 80}, "BackendNotFound"),
        ({"name": "another-name", "port": 80}, "BackendNotFound"),
        ({"name": "control", "port": 80}, "BackendNotFound"),
        ({"name": "summarizer", "kind": "ServiceImport", "group": "multicluster.x-k8s.io"}, "InvalidKind"),
    ],
)
def test_what_a_rule_names_in_vain_is_told_and_its_calls_are_answered_with_500(
    reference: Document, reason: str
) -> None:
    services = (
        *ALL,
        AgentService(NAMESPACE, "plain", "plain", of_mesh=False),
        AgentService(NAMESPACE, "another-name", "another-name", external=True),
        AgentService(NAMESPACE, "control", "control"),
    )
    translation = translated_routes([http_route({"backendRefs": [reference]})], services)
    [rule] = rules_of(translation)
    assert rule["fault"] == {"abort": {"status": 500}}
    [verdict] = verdicts(translation)
    assert [each.reason for each in verdict.unresolved] == [reason]


def test_backends_may_be_in_other_namespaces() -> None:
    other = AgentService("elsewhere", "critic", "critic", ports=(("", 80),))
    document = http_route({"backendRefs": [backend("critic", namespace="elsewhere")]})
    [rule] = rules_of(translated_routes([document], (SUMMARIZER, other)))
    assert rule["split"] == [{"type": "critic", "weight": 1}]


def test_prefixes_are_of_whole_elements_of_a_path() -> None:
    [rule, last] = translated({"matches": [path("/v2/")], **TO_ITSELF})
    assert rule["match"] == [{"path": {"exact": "/v2"}}, {"path": {"prefix": "/v2/"}}]
    assert last == NO_RULE


def test_all_that_a_match_says_must_hold_and_a_header_counts_once() -> None:
    headers = [
        {"name": "Tier", "value": "gold"},
        {"type": "RegularExpression", "name": "Trace", "value": "[0-9]+"},
        {"type": "Exact", "name": "tier", "value": "silver"},
    ]
    [rule, _] = translated(
        {"matches": [path("/draft", "Exact", method="POST", headers=headers)], **TO_ITSELF}
    )
    [match] = rule["match"]
    assert match == {
        "path": {"exact": "/draft"},
        "method": "POST",
        "headers": [{"name": "Tier", "exact": "gold"}, {"name": "Trace", "regex": "[0-9]+"}],
    }


def test_a_match_of_everything_leaves_no_call_without_a_rule() -> None:
    rules = translated(
        {"matches": [path("/")], **TO_ITSELF, "name": "rest"},
        {"matches": [path("/", method="GET")], **TO_ITSELF, "name": "reads"},
    )
    assert [each["name"] for each in rules] == ["reads", "rest"]


def test_the_most_specific_match_comes_first_wherever_it_stands() -> None:
    def only(name: str, *matches: Document) -> Document:
        return {"name": name, "matches": list(matches), **TO_ITSELF}

    rules = translated(
        only("root", path("/")),
        only("short", path("/a")),
        only("headers", path("/a", headers=[{"name": "one", "value": "1"}])),
        only("method", path("/a", method="GET")),
        only("long", path("/a/b")),
        only("expression", path("/a.*", "RegularExpression")),
        only("exact", path("/a", "Exact")),
    )
    order = ["exact", "expression", "long", "method", "headers", "short", "root"]
    assert [each["name"] for each in rules] == order


def test_matches_of_one_rule_are_tried_where_each_belongs() -> None:
    rules = translated(
        {"name": "wide", "matches": [path("/a"), path("/a/b/c")], **TO_ITSELF},
        {"name": "narrow", "matches": [path("/a/b")], **TO_ITSELF},
    )
    assert [each["name"] for each in rules] == ["wide", "narrow", "wide", "no-rule-matches"]


def test_http_routes_of_one_service_are_merged_and_the_older_comes_first() -> None:
    younger = http_route(
        {"name": "younger", "matches": [path("/a")], **TO_ITSELF}, name="a", created="2026-02-01T00:00:00Z"
    )
    older = http_route(
        {"name": "older", "matches": [path("/a")], **TO_ITSELF},
        {"name": "more", "matches": [path("/a/b")], **TO_ITSELF},
        name="b",
    )
    translation = translated_routes([younger, older], ALL)
    names = [each["name"] for each in rules_of(translation)]
    assert names == ["more", "older", "younger", "no-rule-matches"]
    assert [each.type for key in ("a", "b") for each in verdicts(translation, key)] == ["summarizer"] * 2
    assert translation.routes["summarizer"].sources == ((NAMESPACE, "b"), (NAMESPACE, "a"))


def test_many_matches_become_several_rules() -> None:
    [first, second, third, last] = translated(
        {"matches": [path(f"/{number:02}") for number in range(40)], **TO_ITSELF}
    )
    assert [len(each["match"]) for each in (first, second, third)] == [32, 32, 16]
    assert last == NO_RULE


def test_what_would_be_more_rules_than_a_route_can_have_is_refused_for_the_youngest() -> None:
    def alternating(name: str, created: str) -> Document:
        rules = [
            {"matches": [path(f"/{number}{'x' * length}") for length in range(8)], **TO_ITSELF}
            for number in range(6)
        ]
        return http_route(*rules, name=name, created=created)

    translation = translated_routes(
        [alternating("old", "2026-01-01T00:00:00Z"), alternating("young", "2026-01-02T00:00:00Z")], ALL
    )
    [old], [young] = verdicts(translation, "old"), verdicts(translation, "young")
    assert old.refusal is None
    assert young.refusal is not None
    assert young.refusal.reason == "UnsupportedValue"
    assert len(rules_of(translation)) <= 64


def test_time_limits_and_retries_are_those_of_the_rule() -> None:
    timeouts = {"request": "1m30s", "backendRequest": "500ms"}
    retry = {"codes": [502, 503], "attempts": 2}
    [rule] = translated({**TO_ITSELF, "timeouts": timeouts, "retry": retry})
    assert rule["timeout"] == "90s"
    assert rule["retries"] == {"attempts": 2, "perTryTimeout": "500ms"}


def test_no_time_limit_is_the_longest_there_is() -> None:
    [rule] = translated({**TO_ITSELF, "timeouts": {"request": "0s", "backendRequest": "0s"}})
    assert rule["timeout"] == "24h"
    assert "retries" not in rule


def test_headers_are_changed_and_calls_are_mirrored() -> None:
    filters = [
        {
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": {
                "set": [{"name": "Tier", "value": "gold"}, {"name": "tier", "value": "silver"}],
                "add": [{"name": "Via", "value": "gateway"}],
                "remove": ["Debug"],
            },
        },
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["Server"]}},
        {
            "type": "RequestMirror",
            "requestMirror": {
                "backendRef": {"name": "summarizer-v2", "port": 80},
                "fraction": {"numerator": 1, "denominator": 8},
            },
        },
    ]
    [rule] = translated({**TO_ITSELF, "filters": filters})
    assert rule["requestHeaders"] == {
        "set": {"Tier": "gold"},
        "add": {"Via": "gateway"},
        "remove": ["Debug"],
    }
    assert rule["responseHeaders"] == {"remove": ["Server"]}
    assert rule["mirror"] == {"version": "2", "percent": 12.5}


def test_a_mirror_that_is_not_there_costs_the_copies_alone() -> None:
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "absent", "port": 80}}}
    translation = translated_routes([http_route({**TO_ITSELF, "filters": [mirror]})], ALL)
    assert rules_of(translation) == [{"name": "split-1"}]
    [verdict] = verdicts(translation)
    assert [each.reason for each in verdict.unresolved] == ["BackendNotFound"]


def test_a_filter_of_others_is_not_passed_over() -> None:
    other = {"type": "ExtensionRef", "extensionRef": {"group": "example.dev", "kind": "Limit", "name": "x"}}
    translation = translated_routes([http_route({**TO_ITSELF, "filters": [other]})], ALL)
    [rule] = rules_of(translation)
    assert rule["fault"] == {"abort": {"status": 500}}
    [verdict] = verdicts(translation)
    assert [each.reason for each in verdict.unresolved] == ["InvalidKind"]


MIRROR_TO_ITSELF = {
    "type": "RequestMirror",
    "requestMirror": {"backendRef": {"name": "summarizer", "port": 80}},
}
HOST = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "Host", "value": "x"}]}}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"matches": [path("/", queryParams=[{"name": "a", "value": "b"}])]}, "queryParams"),
        ({"matches": [path("/", "Sounds Like")]}, "'Sounds Like' is not known"),
        ({"matches": [path("(", "RegularExpression")]}, "regex"),
        ({"matches": [path("/", headers=[{"name": ":host", "value": "x"}])]}, "header"),
        ({"filters": [{"type": "RequestRedirect", "requestRedirect": {}}]}, "RequestRedirect"),
        ({"filters": [{"type": "URLRewrite", "urlRewrite": {}}]}, "URLRewrite"),
        ({"filters": [{"type": "Novelty", "novelty": {}}]}, "Novelty"),
        ({"filters": [{"type": "RequestMirror"}]}, "requestMirror is missing"),
        ({"filters": [MIRROR_TO_ITSELF]}, "every call would be made twice"),
        ({"filters": [HOST, HOST]}, "Host"),
        ({"backendRefs": [backend("summarizer", filters=[HOST])]}, "backendRefs"),
        ({"timeouts": {"request": "soon"}}, "timeouts.request: is not a duration"),
        ({"timeouts": {"request": "25h"}}, "timeout: must be between 1ms and 24h"),
        ({"retry": {"attempts": 11}}, "attempts"),
        ({"retry": {"codes": [500]}}, "not after 500"),
        ({"retry": {"backoff": "1s"}}, "retry.backoff"),
        ({"sessionPersistence": {"sessionName": "x"}}, "contextAffinity"),
        ({"novelty": True}, "there is no field 'novelty' here"),
        ("nonsense", "must be a mapping"),
    ],
)
def test_what_a_mesh_cannot_do_is_refused(rule: Any, said: str) -> None:
    assert said in refusal_of(rule)


def test_a_rule_that_cannot_be_is_left_out_and_the_others_stay() -> None:
    document = http_route({"retry": {"backoff": "1s"}}, {**TO_ITSELF, "name": "good"})
    translation = translated_routes([document], ALL)
    assert [each["name"] for each in rules_of(translation)] == ["good"]
    [verdict] = verdicts(translation)
    assert verdict.refusal is None
    assert [each.partition(":")[0] for each in verdict.dropped] == ["rule 1"]


@pytest.mark.parametrize(
    ("parent", "service", "reason", "said"),
    [
        ({}, None, "NoMatchingParent", "there is no Service"),
        ({"port": 81}, {}, "NoMatchingParent", "no port 81"),
        ({"sectionName": "grpc"}, {}, "NoMatchingParent", "no port grpc"),
        ({"port": 80}, {"ports": (("a", 80), ("b", 81))}, "UnsupportedValue", "several ports"),
        ({}, {"headless": True}, "UnsupportedValue", "headless"),
        ({}, {"external": True}, "UnsupportedValue", "ExternalName"),
        ({}, {"version": "2"}, "UnsupportedValue", "version '2' alone"),
        ({}, {"type": "llm"}, "UnsupportedValue", "reserved"),
    ],
)
def test_a_parent_to_which_nothing_can_be_attached_is_told(
    parent: Document, service: Document | None, reason: str, said: str
) -> None:
    usual = {"type": "summarizer", "ports": (("http", 80),)}
    services = [AgentService(NAMESPACE, "summarizer", **{**usual, **service})] if service is not None else []
    document = http_route(TO_ITSELF, parents=({**PARENT, **parent},))
    translation = translated_routes([document], services, {NAMESPACE})
    [verdict] = verdicts(translation)
    assert verdict.refusal is not None
    assert (verdict.refusal.reason, verdict.type) == (reason, None)
    assert said in verdict.refusal.message
    assert not translation.routes


def test_a_parent_of_one_port_may_be_named_with_it() -> None:
    parents = ({**PARENT, "port": 80, "sectionName": "http"},)
    translation = translated_routes([http_route(TO_ITSELF, parents=parents)], ALL)
    assert [each.type for each in verdicts(translation)] == ["summarizer"]


def test_what_one_namespace_wants_of_a_service_of_another_is_refused() -> None:
    parents = ({**PARENT, "namespace": NAMESPACE},)
    translation = translated_routes([http_route(TO_ITSELF, namespace="callers", parents=parents)], ALL)
    [verdict] = translation.verdicts["callers", "split"]
    assert verdict.refusal is not None
    assert verdict.refusal.reason == "UnsupportedValue"
    assert "for all callers" in verdict.refusal.message


def test_a_type_is_one_in_all_namespaces_and_the_older_route_is_its() -> None:
    other = AgentService("drafts", "summarizer", "summarizer", ports=(("http", 80),))
    older = http_route({**TO_ITSELF, "name": "older"})
    younger = http_route({**TO_ITSELF, "name": "younger"}, namespace="drafts", created="2026-03-01T00:00:00Z")
    translation = translated_routes([younger, older], (*ALL, other))
    assert [each["name"] for each in rules_of(translation)] == ["older"]
    [verdict] = translation.verdicts["drafts", "split"]
    assert verdict.refusal is not None
    assert verdict.refusal.reason == "Conflicted"
    assert "'split' of namespace 'texts'" in verdict.refusal.message


def test_one_http_route_may_have_several_parents() -> None:
    parents = (PARENT, {**PARENT, "name": "critic"}, {"name": "edge"}, {"kind": 7})
    translation = translated_routes([http_route(TO_ITSELF, parents=parents)], ALL)
    assert [each.type for each in verdicts(translation)] == ["summarizer", "critic"]
    critic = translation.routes["critic"].spec
    assert critic.rules[0].split is not None
    assert critic.rules[0].split[0].type == "summarizer"


@pytest.mark.parametrize(
    "parents",
    [
        ({"name": "edge"},),
        ({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "summarizer"},),
        ({"group": "", "kind": "Service", "name": "elsewhere"},),
        ({"group": "", "kind": "Service", "name": "of-others"},),
    ],
)
def test_what_is_attached_to_others_is_left_alone(parents: tuple[Document, ...]) -> None:
    services = (*ALL, AgentService(NAMESPACE, "of-others", "of-others", of_mesh=False))
    translation = translated_routes([http_route(TO_ITSELF, parents=parents)], services)
    assert verdicts(translation) == ()
    assert not translation.routes


def service(
    name: str = "summarizer", *, labels: Any = None, annotations: Any = None, **spec: Any
) -> Document:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": annotations}
    return {"metadata": metadata, "spec": spec}


def test_a_service_says_for_which_agents_it_stands() -> None:
    ports = [{"name": "http", "port": 80}, {"port": 81}]
    found = agent_service(service(ports=ports, clusterIP="10.0.0.1"))
    assert (found.type, found.version, found.ports) == ("summarizer", None, (("http", 80), ("", 81)))
    assert not found.headless
    assert not found.of_mesh
    selector = {"weft.dev/agent": "summarizer", "app.kubernetes.io/version": "2"}
    found = agent_service(service("second", selector=selector))
    assert (found.type, found.version, found.of_mesh) == ("summarizer", "2", True)
    annotations = {"weft.dev/type": "writer", "weft.dev/version": "3"}
    found = agent_service(service("second", annotations=annotations, selector=selector, clusterIP="None"))
    assert (found.type, found.version, found.of_mesh, found.headless) == ("writer", "3", True, True)


@pytest.mark.parametrize("labels", [{"app.kubernetes.io/managed-by": "weft"}, {"weft.dev/discover": "true"}])
def test_a_service_is_the_meshs_by_its_labels_or_its_namespace(labels: Document) -> None:
    assert agent_service(service(labels=labels)).of_mesh
    assert agent_service(service(), {NAMESPACE}).of_mesh
    assert not agent_service(service(), {"others"}).of_mesh


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("1h", 3600), ("1h30m", 5400), ("10s500ms", 10.5), ("1h1m1s1ms", 3661.001)],
)
def test_durations_are_those_of_the_gateway_api(text: str, seconds: float) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "1.5s", "-1s", "1d", "123456s", "1s1s1s1s1s", " 1s", "1s ", None, 1]
)
def test_what_is_no_duration_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration_seconds(text)
