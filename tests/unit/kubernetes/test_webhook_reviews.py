"""What webhooks answer: pods with sidecars, refusals that say what to do, custom resources checked."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from tests.json_patches import applied
from tests.unit.kubernetes.pods import SETTINGS, injected, pod

from weft.errors import InvalidRequest
from weft.kubernetes.webhook.admission import (
    AdmissionRequest,
    Cause,
    Verdict,
    read_review,
    write_review,
)
from weft.kubernetes.webhook.injection_review import review_pod
from weft.kubernetes.webhook.validation_review import review_resource

Document = dict[str, Any]
SYSTEM = "weft-system"


def review(document: Any, *, old: Any = None, kind: str = "Pod", group: str = "", **said: Any) -> bytes:
    """An AdmissionReview as API servers send it."""
    request = {
        "uid": "5a6b",
        "kind": {"group": group, "version": "v1", "kind": kind},
        "resource": {"group": group, "version": "v1", "resource": "any"},
        "namespace": "agents",
        "operation": "UPDATE" if old is not None else "CREATE",
        "userInfo": {"username": "somebody"},
        "object": document,
        "oldObject": old,
        "dryRun": False,
        **said,
    }
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(whole).encode()


def asked(document: Any, **said: Any) -> AdmissionRequest:
    return read_review(review(document, **said))


def as_created(found: Document) -> Document:
    """A pod as an API server shows it to webhooks: with what it writes into every pod itself."""
    spec = found["spec"]
    token = {"name": "kube-api-access-x2x4z", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    containers = [
        {**each, "volumeMounts": [*each.get("volumeMounts", []), token]} for each in spec["containers"]
    ]
    usual = {"terminationGracePeriodSeconds": 30, "securityContext": {}, "dnsPolicy": "ClusterFirst"}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"generateName": "summarizer-5d9c-", "namespace": "agents", **found["metadata"]},
        "spec": {**usual, **spec, "containers": containers, "volumes": [{"name": token["name"]}]},
        "status": {},
    }


def test_a_pod_gets_the_same_sidecar_as_by_the_command() -> None:
    before = as_created(pod(capabilities="summarize"))
    verdict = review_pod(asked(before), SETTINGS, SYSTEM)
    assert verdict.allowed
    assert verdict.warnings == ()
    assert applied(before, verdict.patch) == injected(before).pod


def test_a_pod_that_has_it_already_is_not_changed() -> None:
    before = as_created(pod())
    with_it = injected(before).pod
    assert review_pod(asked(with_it), SETTINGS, SYSTEM) == Verdict()


def test_what_the_api_server_adds_to_the_sidecar_between_two_questions_is_taken_off_again() -> None:
    # Its own plugins look at a pod again once webhooks have changed it: that for service accounts mounts the
    # token of the cluster's API into every container that does not have it.
    with_it = injected(as_created(pod())).pod
    added = {"name": "kube-api-access-x2x4z", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    again = deepcopy(with_it)
    again["spec"]["initContainers"][0]["volumeMounts"].append(added)
    verdict = review_pod(asked(again), SETTINGS, SYSTEM)
    assert applied(again, verdict.patch) == with_it


def test_what_a_warning_is_about_is_told_and_the_pod_is_taken() -> None:
    found = as_created(pod())
    found["spec"]["containers"][0]["envFrom"] = [{"configMapRef": {"name": "more"}}]
    verdict = review_pod(asked(found), SETTINGS, SYSTEM)
    assert verdict.allowed
    assert [each.partition(":")[0] for each in verdict.warnings] == ["VariablesUnseen"]


def _spec(**fields: Any) -> Callable[[Document], None]:
    return lambda found: found["spec"].update(fields)


def _proxy(found: Document) -> None:
    found["spec"]["containers"].append({"name": "envoy", "image": "envoyproxy/envoy:v1.35"})


@pytest.mark.parametrize(
    ("change", "reason", "told"),
    [
        (_proxy, "OtherProxy", "remove it"),
        (_spec(hostNetwork=True), "HostNetwork", "remove hostNetwork"),
        (_spec(serviceAccountName="default"), "NoServiceAccount", "create a ServiceAccount"),
        (_spec(nodeSelector={"kubernetes.io/os": "windows"}), "WindowsNode", "run the agent on Linux"),
        (lambda found: found["metadata"].update(generateName="my.app-5d9c-"), "NameUnfit", "without dots"),
        (lambda found: found["metadata"].update(name="my.pod"), "NameUnfit", "without dots"),
    ],
)
def test_a_pod_that_cannot_have_a_sidecar_is_refused_and_its_author_told_what_to_do(
    change: Callable[[Document], None], reason: str, told: str
) -> None:
    found = as_created(pod())
    change(found)
    verdict = review_pod(asked(found), SETTINGS, SYSTEM)
    assert not verdict.allowed
    assert [each.reason for each in verdict.causes] == [reason]
    assert told in verdict.causes[0].message
    assert verdict.patch == []


def test_an_init_container_that_speaks_to_the_mesh_is_taken_with_a_warning() -> None:
    found = as_created(pod())
    fetch = {"name": "fetch", "image": "a:1", "command": ["curl", "http://planner.mesh/plan"]}
    found["spec"]["initContainers"] = [fetch]
    verdict = review_pod(asked(found), SETTINGS, SYSTEM)
    assert verdict.allowed
    assert verdict.warnings[0].startswith("InitContainerOutside: ")
    assert "HTTP_PROXY" in verdict.warnings[0]


@pytest.mark.parametrize("namespace", [SYSTEM, "kube-system"])
def test_pods_of_the_installation_and_of_the_cluster_are_never_touched(namespace: str) -> None:
    request = asked(as_created(pod()), namespace=namespace)
    assert review_pod(request, SETTINGS, SYSTEM) == Verdict()


@pytest.mark.parametrize("field", ["labels", "annotations"])
def test_a_pod_that_wants_no_sidecar_is_left_alone(field: str) -> None:
    found = as_created(pod())
    found["metadata"][field] = {"weft.dev/inject": "false"}
    found["spec"]["hostNetwork"] = True
    assert review_pod(asked(found), SETTINGS, SYSTEM) == Verdict()


def test_what_only_shows_a_nodes_own_pod_is_left_alone() -> None:
    found = as_created(pod())
    del found["spec"]["serviceAccountName"]
    found["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "1234"}
    assert review_pod(asked(found), SETTINGS, SYSTEM) == Verdict()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {}}',
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}',
        review([]),
        review({}, uid=""),
        review({}, uid="x" * 300),
        review({}, operation="PATCH"),
        b"\xff\xfe",
    ],
)
def test_what_is_no_review_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no AdmissionReview"):
        read_review(content)


@pytest.mark.parametrize(
    "document", [{}, {"metadata": [], "spec": {}}, {"spec": {"containers": [1]}}, {"metadata": 1, "spec": []}]
)
def test_what_is_no_pod_is_refused_as_that(document: Any) -> None:
    verdict = review_pod(asked(document), SETTINGS, SYSTEM)
    assert [each.reason for each in verdict.causes] == ["InvalidPod"]


def test_who_asks_about_something_else_is_told_so() -> None:
    with pytest.raises(InvalidRequest, match="asked about UPDATE of Pod"):
        review_pod(asked(pod(), old=pod()), SETTINGS, SYSTEM)
    with pytest.raises(InvalidRequest, match="asked about CREATE of Pod"):
        review_resource(asked(pod()), SETTINGS)
    with pytest.raises(InvalidRequest, match=r"asked about CREATE of Queue\.example\.test"):
        review_resource(asked({}, kind="Queue", group="example.test"), SETTINGS)


def test_an_answer_says_which_question_it_is_for() -> None:
    answer = write_review(asked(pod()), Verdict(patch=[{"op": "remove", "path": "/a"}], warnings=("Look.",)))
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    patch = base64.b64encode(b'[{"op":"remove","path":"/a"}]').decode()
    assert answer["response"] == {
        "uid": "5a6b",
        "allowed": True,
        "warnings": ["Look."],
        "patchType": "JSONPatch",
        "patch": patch,
    }


def test_a_refusal_is_told_in_words_and_cause_by_cause() -> None:
    causes = (Cause("HostNetwork", "remove it"), Cause("FieldValueInvalid", "is wrong", "spec.a"))
    response = write_review(asked(pod(), name="one"), Verdict(causes=causes))["response"]
    assert response["allowed"] is False
    assert "patch" not in response
    status = response["status"]
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert status["message"] == "HostNetwork: remove it; spec.a: is wrong"
    assert status["details"]["causes"][1] == {
        "reason": "FieldValueInvalid",
        "message": "is wrong",
        "field": "spec.a",
    }


def test_no_answer_grows_without_end() -> None:
    long = "x" * 100_000
    answer = write_review(asked(pod()), Verdict(warnings=(long,) * 500))
    assert len(json.dumps(answer)) < 64 * 1024
    answer = write_review(asked(pod()), Verdict(causes=(Cause("A", long),) * 500))
    assert len(json.dumps(answer)) < 512 * 1024


def resource(kind: str, spec: Any, name: str = "one") -> Document:
    metadata = {"name": name, "namespace": "agents", "uid": "1", "managedFields": [], "generation": 1}
    return {"apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def checked(kind: str, spec: Any, *, old: Any = None, name: str = "one") -> Verdict:
    before = None if old is None else resource(kind, old, name)
    document = resource(kind, spec, name)
    return review_resource(asked(document, kind=kind, group="weft.dev", old=before), SETTINGS)


VALUE = {"secretKeyRef": {"name": "provider", "key": "api-key"}}


@pytest.mark.parametrize(
    ("kind", "spec", "field", "told"),
    [
        ("Queue", {"visibilityTimeout": "1ms"}, "spec.visibilityTimeout", ""),
        ("TrafficPolicy", {"loadBalancing": {"hashOn": "x"}}, "spec.loadBalancing.hashOn", ""),
        ("Egress", {"mode": "open", "allow": [{"host": "example.test"}]}, "spec.allow", "goes with mode"),
        (
            "Secret",
            {"data": {"key": VALUE}, "inject": [{"host": "api.example", "key": "other"}]},
            "spec.inject[0].key",
            "names no value of data",
        ),
        ("AgentDeployment", {"image": "a:1", "replicas": {"least": 5, "most": 2}}, "spec.replicas", "above"),
        ("AgentDeployment", {"image": "a:1", "agent": {"run": {"command": ["a"]}}}, "spec.agent", "weft up"),
        ("AgentDeployment", {"image": "a:1", "agent": {"port": 7443}}, "", "choose another"),
    ],
)
def test_what_no_schema_can_say_is_checked(kind: str, spec: Any, field: str, told: str) -> None:
    verdict = checked(kind, spec)
    assert [each.field for each in verdict.causes] == [field]
    assert told in verdict.causes[0].message


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Queue", {"concurrency": 3}),
        ("Agent", {"capabilities": ["a"]}),
        ("Secret", {"data": {"key": VALUE}, "inject": [{"host": "api.example", "key": "key"}]}),
        ("Topic", {"deadLetter": None}),
        ("Topic", {"deadLetter": "declared-elsewhere"}),
        ("AgentDeployment", {"image": "a:1"}),
    ],
)
def test_what_is_right_is_taken_whatever_else_there_is(kind: str, spec: Any) -> None:
    assert checked(kind, spec) == Verdict()


def test_what_may_not_change_does_not() -> None:
    verdict = checked("Topic", {"partitions": 3}, old={"partitions": 2})
    assert [each.field for each in verdict.causes] == ["spec.partitions"]


def test_what_is_wrong_already_can_be_labelled_and_can_end() -> None:
    wrong = {"mode": "open", "allow": [{"host": "example.test"}]}
    assert checked("Egress", wrong, old=wrong) == Verdict()
    assert checked("Egress", {"mode": "open"}, old=wrong) == Verdict()
    before, after = resource("Egress", {"mode": "open"}), resource("Egress", wrong)
    after["metadata"]["deletionTimestamp"] = "2026-11-22T07:00:00Z"
    request = asked(after, old=before, kind="Egress", group="weft.dev")
    assert review_resource(request, SETTINGS) == Verdict()


@pytest.mark.parametrize("document", [{}, {"metadata": 1}, {"kind": "Queue", "metadata": [], "spec": 4}])
def test_what_has_not_the_shape_of_a_resource_is_refused(document: Any) -> None:
    for kind in ("Queue", "AgentDeployment"):
        request = asked(document, kind=kind, group="weft.dev")
        assert not review_resource(request, SETTINGS).allowed
