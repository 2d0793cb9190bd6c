"""NATS: a StatefulSet of servers with a volume each, and the Service by which everybody finds them."""

from __future__ import annotations

from typing import Final

from weft.kubernetes.first_keys import CONTROL_USER, ISSUER
from weft.kubernetes.installation.pods import (
    KEYS_DIRECTORY,
    POD_FIELDS,
    ROOTS_PATH,
    TMP,
    TRUST_DIRECTORY,
    apart,
    container,
    disruption_budget,
    mounted,
    pod,
    probes,
    roots_volume,
    secret_volume,
    service_account,
    variable,
)
from weft.kubernetes.installation.setup import (
    NATS_CLUSTER_PORT,
    NATS_HEALTH_PORT,
    NATS_PORT,
    Document,
    Setup,
)

PART: Final = "nats"
STORE_DIRECTORY: Final = "/var/lib/weft/nats"
_KEYS: Final = ("server.pem", "server.key", "roots.pem", CONTROL_USER, ISSUER)
_GRACE: Final = 60
"""Seconds a server has to hand over what it leads, and to tell its clients."""


def nats(setup: Setup) -> list[Document]:
    """Account, Service, StatefulSet, and how many may be away."""
    return [
        service_account(setup, PART),
        _service(setup),
        _stateful_set(setup),
        *([disruption_budget(setup, PART)] if setup.values.nats.replicas > 1 else []),
    ]


def _service(setup: Setup) -> Document:
    spec = {
        "clusterIP": "None",
        # Servers find each other by it before any of them is ready.
        "publishNotReadyAddresses": True,
        "selector": setup.selector(PART),
        "ports": [
            {"name": "client", "port": NATS_PORT, "targetPort": "client", "protocol": "TCP"},
            {"name": "cluster", "port": NATS_CLUSTER_PORT, "targetPort": "cluster", "protocol": "TCP"},
        ],
    }
    return setup.document("v1", "Service", PART, spec=spec)


def _stateful_set(setup: Setup) -> Document:
    values = setup.values.nats
    keys = secret_volume("keys", setup.named("nats"), _KEYS)
    volumes = [keys, roots_volume(setup, optional=True)]
    template = pod(setup, PART, setup.named(PART), [_server(setup)], volumes, token=False, grace=_GRACE)
    template["spec"]["affinity"] = apart(setup, PART)
    claim: Document = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": values.storage.size}},
    }
    if values.storage.class_name:
        claim["storageClassName"] = values.storage.class_name
    spec = {
        "serviceName": setup.named(PART),
        "replicas": values.replicas,
        # A majority must be there before any of them is ready.
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "revisionHistoryLimit": 5,
        "selector": {"matchLabels": setup.selector(PART)},
        "template": template,
        "volumeClaimTemplates": [
            {"metadata": {"name": "store", "labels": setup.selector(PART)}, "spec": claim}
        ],
    }
    return setup.document("apps/v1", "StatefulSet", PART, spec=spec)


def _server(setup: Setup) -> Document:
    arguments = [
        "--name=$(POD_NAME)",
        "--listen=0.0.0.0",
        f"--advertise=$(POD_NAME).{setup.host(PART)}",
        *(f"--peer={host}:{NATS_CLUSTER_PORT}" for host in _peers(setup)),
        f"--keys={KEYS_DIRECTORY}",
        f"--roots={ROOTS_PATH}",
        f"--store={STORE_DIRECTORY}",
        f"--max-store={setup.values.nats.storage.most}",
        f"--client-port={NATS_PORT}",
        f"--cluster-port={NATS_CLUSTER_PORT}",
        f"--health-port={NATS_HEALTH_PORT}",
    ]
    return container(
        setup,
        "nats",
        ["weft", "kubernetes", "nats"],
        arguments,
        setup.values.nats.resources,
        env=[*POD_FIELDS, variable("GOMEMLIMIT", setup.values.nats.memory_target)],
        ports=[
            {"name": "client", "containerPort": NATS_PORT, "protocol": "TCP"},
            {"name": "cluster", "containerPort": NATS_CLUSTER_PORT, "protocol": "TCP"},
            {"name": "health", "containerPort": NATS_HEALTH_PORT, "protocol": "TCP"},
        ],
        # A server that has been away reads its volume, and what it missed, before it answers.
        **probes("/livez", "/readyz", NATS_HEALTH_PORT, start_seconds=600),
        volumeMounts=[
            mounted("keys", KEYS_DIRECTORY),
            mounted("trust", TRUST_DIRECTORY),
            mounted("store", STORE_DIRECTORY, writable=True),
            TMP,
        ],
    )


def _peers(setup: Setup) -> tuple[str, ...]:
    """All servers, this one too; none where it is alone."""
    return setup.nats_hosts if setup.values.nats.replicas > 1 else ()
