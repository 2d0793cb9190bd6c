"""Who reaches what: nobody what is not named here; NATS itself reaches nothing but its like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from weft.kubernetes.installation.gateway import OUTSIDE_PORT, gateway_part
from weft.kubernetes.installation.setup import (
    API_PORT,
    HEALTH_PORT,
    METRICS_PORT,
    NATS_CLUSTER_PORT,
    NATS_PORT,
    SIDECAR_METRICS_PORT,
    SIDECAR_PORT,
    WEBHOOK_PORT,
    XDS_PORT,
    Document,
    Setup,
)

_API: Final = "networking.k8s.io/v1"
_DNS_PORT: Final = 53


def network_policies(setup: Setup) -> list[Document]:
    """One for each part; none where there are to be none."""
    values = setup.values
    if not values.network_policies.enabled:
        return []
    clients, metrics = values.network_policies.clients, values.network_policies.metrics
    found = [
        _nats(setup),
        _policy(setup, "control", [*_from(clients, API_PORT, XDS_PORT), *_from(metrics, METRICS_PORT)]),
    ]
    if values.bootstrap.enabled:
        found.append(_policy(setup, "bootstrap", []))
    if values.controller.enabled:
        found.append(_policy(setup, "controller", _from(metrics, HEALTH_PORT)))
    if values.webhook.enabled:
        # The cluster's API server is no pod, and has an address that nobody knows here.
        found.append(_policy(setup, "webhook", [_let_in(WEBHOOK_PORT), *_from(metrics, HEALTH_PORT)]))
    return [*found, *(_gateway(setup, name) for name in sorted(values.gateways))]


def _gateway(setup: Setup, name: str) -> Document:
    policies = setup.values.network_policies
    ingress = [
        *_from(policies.callers, OUTSIDE_PORT),
        *_from(policies.clients, SIDECAR_PORT),
        *_from(policies.metrics, SIDECAR_METRICS_PORT),
    ]
    return _policy(setup, gateway_part(name), ingress)


def _nats(setup: Setup) -> Document:
    servers = {"podSelector": {"matchLabels": setup.selector("nats")}}
    document = _policy(
        setup,
        "nats",
        [
            *_from(setup.values.network_policies.clients, NATS_PORT),
            *_from([servers], NATS_CLUSTER_PORT),
        ],
    )
    document["spec"]["policyTypes"] = ["Ingress", "Egress"]
    document["spec"]["egress"] = [
        {"to": [servers], "ports": [_port(NATS_CLUSTER_PORT)]},
        {"ports": [_port(_DNS_PORT, "UDP"), _port(_DNS_PORT)]},
    ]
    return document


def _policy(setup: Setup, part: str, ingress: Sequence[Document]) -> Document:
    spec = {
        "podSelector": {"matchLabels": setup.selector(part)},
        "policyTypes": ["Ingress"],
        "ingress": list(ingress),
    }
    return setup.document(_API, "NetworkPolicy", part, spec=spec)


def _from(peers: Sequence[Document], *ports: int) -> list[Document]:
    """Lets `peers` in; nobody where there are none, which an empty `from` would not mean."""
    return [{"from": list(peers), **_let_in(*ports)}] if peers else []


def _let_in(*ports: int) -> Document:
    return {"ports": [_port(each) for each in ports]}


def _port(port: int, protocol: str = "TCP") -> Document:
    return {"port": port, "protocol": protocol}
