"""Gateways: a Deployment of sidecars with the gateway's process beside, a Service and an autoscaler each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from weft.kubernetes.injection import AGENT_LABEL
from weft.kubernetes.injection_settings import LEASE_SECONDS, ROOTS_FILE
from weft.kubernetes.installation.pods import (
    LEAVE,
    LEAVE_SECONDS,
    POD_FIELDS,
    ROOTS_PATH,
    RUN_DIRECTORY,
    TLS_DIRECTORY,
    TMP,
    TRUST_DIRECTORY,
    container,
    deployment,
    disruption_budget,
    field_variable,
    mounted,
    pod,
    probe,
    scraped,
    secret_volume,
    service_account,
)
from weft.kubernetes.installation.setup import (
    SIDECAR_METRICS_PORT,
    SIDECAR_PORT,
    Document,
    Setup,
)
from weft.kubernetes.installation_values import GatewayValues
from weft.kubernetes.sidecar_container import AUDIENCE
from weft.local.gateway_run import gateway_arguments
from weft.sidecar.kubelet_answers import LIVE_PATH

OUTSIDE_PORT: Final = 8080
_TOKEN: Final = "token"  # noqa: S105 -- a file's name
_TOKEN_SECONDS: Final = 3600
_CONTAINER: Final = "gateway"
_GRACE: Final = 60
"""Seconds in which calls end, tasks that were waited for too, and the process stops."""


def gateways(setup: Setup) -> list[Document]:
    """Those of all gateways, by their names."""
    return [
        document
        for name, values in sorted(setup.values.gateways.items())
        for document in _gateway(setup, name, values)
    ]


def gateway_part(name: str) -> str:
    """What the gateway's objects are called, but for its account."""
    return f"gateway-{name}"


def _gateway(setup: Setup, name: str, values: GatewayValues) -> Iterator[Document]:
    part = gateway_part(name)
    fixed = values.replicas.least == values.replicas.most
    # Its name is what its pods prove: the Gateway's.
    yield service_account(setup, part, name)
    yield _service(setup, part, values)
    yield deployment(setup, part, _template(setup, name, values), values.replicas.least if fixed else None)
    if values.replicas.most > 1:
        yield disruption_budget(setup, part)
    if not fixed:
        yield _autoscaler(setup, part, values)


def _service(setup: Setup, part: str, values: GatewayValues) -> Document:
    port = {"name": "outside", "port": values.service.port, "targetPort": "outside", "protocol": "TCP"}
    spec = {"type": values.service.type.value, "selector": setup.selector(part), "ports": [port]}
    document = setup.document("v1", "Service", part, spec=spec)
    if values.service.annotations:
        document["metadata"]["annotations"] = dict(values.service.annotations)
    return document


def _template(setup: Setup, name: str, values: GatewayValues) -> Document:
    token = {"audience": AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": _TOKEN}
    roots = {"name": setup.roots, "items": [{"key": ROOTS_FILE, "path": ROOTS_FILE}]}
    volumes: list[Document] = [
        {
            "name": "trust",
            "projected": {
                "defaultMode": 0o440,
                "sources": [{"serviceAccountToken": token}, {"configMap": roots}],
            },
        },
        # Private keys lie there: in memory, never on a node's disk.
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}},
        *([secret_volume("tls", values.tls_secret)] if values.tls_secret else []),
    ]
    template = pod(
        setup,
        gateway_part(name),
        name,
        [_process(setup, name, values)],
        volumes,
        token=False,
        grace=_GRACE + LEAVE_SECONDS,
        annotations=scraped(setup, SIDECAR_METRICS_PORT),
    )
    # As every pod with a sidecar has it: metrics are found by it.
    template["metadata"]["labels"][AGENT_LABEL] = name
    return template


def _process(setup: Setup, name: str, values: GatewayValues) -> Document:
    outside = "HTTPS" if values.tls_secret else "HTTP"
    return container(
        setup,
        _CONTAINER,
        ["python", "-P", "-m", "weft.sidecar"],
        [*_arguments(setup, name), "--", "python", "-P", "-m", "weft.gateway"],
        values.resources,
        env=[*POD_FIELDS, field_variable("POD_UID", "metadata.uid")],
        ports=[
            {"name": "outside", "containerPort": OUTSIDE_PORT, "protocol": "TCP"},
            {"name": "weft-in", "containerPort": SIDECAR_PORT, "protocol": "TCP"},
            {"name": "weft-metrics", "containerPort": SIDECAR_METRICS_PORT, "protocol": "TCP"},
        ],
        # As a caller comes: through Envoy, to the process, which says whether it serves. There is nobody to
        # answer before the Gateway is declared, and that is no reason to start anew.
        startupProbe=probe(LIVE_PATH, SIDECAR_METRICS_PORT, every=2, failures=90),
        readinessProbe=probe("/ready", OUTSIDE_PORT, every=5, failures=2, scheme=outside),
        livenessProbe=probe(LIVE_PATH, SIDECAR_METRICS_PORT, every=10, failures=6),
        lifecycle=LEAVE,
        volumeMounts=[
            mounted("trust", TRUST_DIRECTORY),
            mounted("run", RUN_DIRECTORY, writable=True),
            *([mounted("tls", TLS_DIRECTORY)] if values.tls_secret else []),
            TMP,
        ],
    )


def _arguments(setup: Setup, name: str) -> list[str]:
    return [
        # At loopback, too, for `kubectl port-forward`.
        *gateway_arguments(name, "0.0.0.0", OUTSIDE_PORT),  # noqa: S104
        "--id=$(POD_NAME)",
        "--incarnation=$(POD_UID)",
        "--label=namespace=$(POD_NAMESPACE)",
        "--bind=$(POD_IP)",
        f"--inbound-port={SIDECAR_PORT}",
        "--metrics-host=$(POD_IP)",
        f"--metrics-port={SIDECAR_METRICS_PORT}",
        f"--api={setup.api}",
        f"--xds={setup.xds}",
        f"--nats={setup.nats}",
        f"--trust-bundle={ROOTS_PATH}",
        f"--service-account-token={TRUST_DIRECTORY}/{_TOKEN}",
        f"--runtime-dir={RUN_DIRECTORY}",
        f"--lease-ttl={LEASE_SECONDS}",
        f"--log-level={setup.values.log_level.value}",
    ]


def _autoscaler(setup: Setup, part: str, values: GatewayValues) -> Document:
    metric = {
        "type": "ContainerResource",
        "containerResource": {
            "container": _CONTAINER,
            "name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": values.cpu_percent},
        },
    }
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": setup.named(part)},
        "minReplicas": values.replicas.least,
        "maxReplicas": values.replicas.most,
        "metrics": [metric],
    }
    return setup.document("autoscaling/v2", "HorizontalPodAutoscaler", part, spec=spec)
