"""Services without sidecars behind them, as ExternalAgents."""

from __future__ import annotations

from typing import Any

import pytest

from weft.kubernetes.plain_service import PlainService, plain_service
from weft.kubernetes.problem import Refusal

Document = dict[str, Any]

HTTP: Document = {"name": "http", "port": 80, "targetPort": 8080}
GRPC: Document = {"name": "grpc", "port": 81, "appProtocol": "kubernetes.io/h2c"}


def service(*ports: Document, labels: Document | None = None, **annotations: str) -> Document:
    metadata: Document = {"name": "crm", "namespace": "sales", "labels": labels or {}}
    metadata["annotations"] = {f"weft.dev/{name}": value for name, value in annotations.items()}
    return {"metadata": metadata, "spec": {"ports": list(ports or (HTTP,))}}


def endpoint_slice(*endpoints: Any, family: str = "IPv4", ports: Any = None) -> Document:
    return {
        "addressType": family,
        "ports": [{"name": "http", "port": 8080}] if ports is None else ports,
        "endpoints": [
            {"addresses": [each], "conditions": {"ready": True}} if isinstance(each, str) else each
            for each in endpoints
        ],
    }


def declared(found: PlainService) -> Document:
    assert found.spec is not None
    return found.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def test_a_service_is_a_type_of_agent_at_the_addresses_that_are_ready() -> None:
    slices = [
        endpoint_slice("10.0.0.9", {"addresses": ["10.0.0.8"], "conditions": {"ready": False}}),
        endpoint_slice("10.0.0.7", {"addresses": ["10.0.0.6"]}, "10.0.0.9"),
    ]
    found = plain_service(service(), slices)
    assert found.type == "crm"
    assert declared(found) == {"endpoints": ["10.0.0.6:8080", "10.0.0.7:8080", "10.0.0.9:8080"]}


def test_without_a_ready_address_there_is_nobody_to_call() -> None:
    waiting = {"addresses": ["10.0.0.8"], "conditions": {"ready": False}}
    for slices in ([], [endpoint_slice()], [endpoint_slice(waiting)], [endpoint_slice("10.0.0.1", ports=[])]):
        assert plain_service(service(), slices).spec is None


def test_annotations_say_the_rest() -> None:
    annotated = service(HTTP, GRPC, type="customers", version="3", capabilities="find, list,", port="grpc")
    ports = [{"name": "http", "port": 8080}, {"name": "grpc", "port": 8081}]
    found = plain_service(annotated, [endpoint_slice("10.0.0.7", ports=ports)])
    assert found.type == "customers"
    assert declared(found) == {
        "endpoints": ["10.0.0.7:8081"],
        "protocol": "h2c",
        "capabilities": ["find", "list"],
        "version": "3",
    }


def test_a_port_may_be_named_by_its_number_and_the_protocol_be_said() -> None:
    found = plain_service(service(HTTP, GRPC, port="80", protocol="h2c"), [endpoint_slice("10.0.0.7")])
    assert declared(found) == {"endpoints": ["10.0.0.7:8080"], "protocol": "h2c"}


def test_the_version_is_that_of_the_usual_label() -> None:
    found = plain_service(service(labels={"app.kubernetes.io/version": "7"}), [endpoint_slice("10.0.0.7")])
    assert declared(found)["version"] == "7"


def test_pods_of_both_families_are_called_once() -> None:
    six = endpoint_slice("fd00::7", family="IPv6")
    assert declared(plain_service(service(), [six])) == {"endpoints": ["[fd00::7]:8080"]}
    both = plain_service(service(), [six, endpoint_slice("10.0.0.7")])
    assert declared(both) == {"endpoints": ["10.0.0.7:8080"]}


def test_of_more_addresses_than_there_may_be_the_same_ones_get_calls() -> None:
    many = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(300)]
    found = plain_service(service(), [endpoint_slice(*many[:150]), endpoint_slice(*many[150:])])
    again = plain_service(service(), [endpoint_slice(*reversed(many))])
    assert found == again
    assert found.spec is not None
    assert len(found.spec.endpoints) == 256
    assert [(each.reason, each.refused) for each in found.problems] == [("TooManyAddresses", False)]


@pytest.mark.parametrize(
    ("document", "reason", "said"),
    [
        (service(HTTP, GRPC), "PortUnclear", "several ports"),
        (service(HTTP, port="metrics"), "PortUnclear", "no port 'metrics'"),
        ({**service(), "spec": {}}, "PortUnclear", "no ports"),
        (service(type="llm"), "InvalidType", "reserved"),
        (service(type="Not A Type"), "InvalidType", "not a valid name"),
        (service(protocol="http3"), "InvalidAnnotation", "protocol"),
        (service(capabilities="not this"), "InvalidAnnotation", "capabilities"),
        ({**service(), "spec": {"type": "ExternalName"}}, "NoAddresses", "declare an ExternalAgent"),
    ],
)
@pytest.mark.parametrize("addresses", [(), ("10.0.0.7",)])
def test_what_is_wrong_is_told_whether_an_address_is_ready_or_not(
    document: Document, reason: str, said: str, addresses: tuple[str, ...]
) -> None:
    with pytest.raises(Refusal) as refused:
        plain_service(document, [endpoint_slice(*addresses)])
    assert refused.value.problem.reason == reason
    assert said in refused.value.problem.message
