"""The control plane: a Deployment, the Service by which sidecars find it, and the mesh's roots, published."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from weft.kubernetes.first_keys import OPERATOR_TOKEN, SEALING_KEY
from weft.kubernetes.injection_settings import LEASE_SECONDS, ROOTS_FILE
from weft.kubernetes.installation.pods import (
    FILES_DIRECTORY,
    KEYS_DIRECTORY,
    LEAVE,
    LEAVE_SECONDS,
    OPERATOR_DIRECTORY,
    POD_FIELDS,
    RUN_DIRECTORY,
    TMP,
    container,
    deployment,
    disruption_budget,
    mounted,
    pod,
    probes,
    scraped,
    secret_volume,
    service_account,
    variable,
)
from weft.kubernetes.installation.rbac import attestation_rules, clusterwide, namespaced, publisher_rules
from weft.kubernetes.installation.setup import (
    API_PORT,
    DASHBOARD_PORT,
    METRICS_PORT,
    NATS_PORT,
    PUBLISHER_PORT,
    XDS_PORT,
    Document,
    Setup,
)

PART: Final = "control"
_KEYS: Final = ("roots.pem", "control.pem", "control.seed", "issuer.seed")
_BUNDLE: Final = f"{RUN_DIRECTORY}/{ROOTS_FILE}"
_SEALING_VARIABLE: Final = "SEALING_KEY"
_GRACE: Final = 30


def control(setup: Setup) -> list[Document]:
    """Account, rights, ConfigMap, Service, Deployment, and how many may be away."""
    replicas = setup.values.control.replicas
    return [
        service_account(setup, PART),
        *namespaced(setup, PART, publisher_rules(setup)),
        *clusterwide(setup, PART, attestation_rules()),
        # Without data: applied again, it must not take away what was published in it.
        setup.document("v1", "ConfigMap", PART, name=setup.roots),
        _service(setup),
        deployment(setup, PART, _template(setup), replicas),
        *([disruption_budget(setup, PART)] if replicas > 1 else []),
    ]


def _service(setup: Setup) -> Document:
    ports = (("api", API_PORT), ("xds", XDS_PORT), ("metrics", METRICS_PORT))
    spec = {
        "type": "ClusterIP",
        "selector": setup.selector(PART),
        "ports": [
            {"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in ports
        ],
    }
    return setup.document("v1", "Service", PART, spec=spec)


def _template(setup: Setup) -> Document:
    files = setup.values.control.files_secret
    volumes = [
        secret_volume("keys", setup.named("nats"), _KEYS),
        secret_volume("operator", setup.named("operator-token"), [OPERATOR_TOKEN]),
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        *([secret_volume("files", files)] if files else []),
    ]
    return pod(
        setup,
        PART,
        setup.named(PART),
        [_control_plane(setup), _publisher(setup)],
        volumes,
        token=True,
        grace=_GRACE + LEAVE_SECONDS,
        annotations=scraped(setup, METRICS_PORT),
    )


def _control_plane(setup: Setup) -> Document:
    files = [mounted("files", FILES_DIRECTORY)] if setup.values.control.files_secret else []
    key = {"secretKeyRef": {"name": setup.named("sealing-key"), "key": SEALING_KEY}}
    return container(
        setup,
        "control",
        ["python", "-P", "-m", "weft.controlplane"],
        [],
        setup.values.control.resources,
        env=[
            *POD_FIELDS,
            # A file in a pod can be read by its group, which is refused for a key that seals all others.
            {"name": _SEALING_VARIABLE, "valueFrom": key},
            *(variable(f"WEFT_CONTROL_{name}", value) for name, value in _settings(setup)),
            *(variable(name, value) for name, value in sorted(setup.values.control.settings.items())),
        ],
        ports=[
            {"name": "api", "containerPort": API_PORT, "protocol": "TCP"},
            {"name": "xds", "containerPort": XDS_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        **probes("/livez", "/readyz", API_PORT, scheme="HTTPS", start_seconds=300),
        lifecycle=LEAVE,
        volumeMounts=[
            mounted("keys", KEYS_DIRECTORY),
            mounted("operator", OPERATOR_DIRECTORY),
            *files,
            mounted("run", RUN_DIRECTORY, writable=True),
            TMP,
        ],
    )


def _settings(setup: Setup) -> Iterator[tuple[str, str]]:
    """What the control plane is told, by the names of its settings."""
    yield "NATS", json.dumps([f"tls://{host}:{NATS_PORT}" for host in setup.nats_hosts])
    yield "NATS_ROOTS_FILE", f"{KEYS_DIRECTORY}/roots.pem"
    yield "NATS_CREDENTIALS_FILE", f"{KEYS_DIRECTORY}/control.pem"
    yield "NATS_SEED_FILE", f"{KEYS_DIRECTORY}/control.seed"
    yield "NATS_ISSUER_FILE", f"{KEYS_DIRECTORY}/issuer.seed"
    yield "NATS_REPLICAS", str(min(3, setup.values.nats.replicas))
    yield "HOST", "0.0.0.0"  # noqa: S104 -- of a pod, whose address nobody knows yet
    yield "API_PORT", str(API_PORT)
    yield "XDS_PORT", str(XDS_PORT)
    # Without TLS for `kubectl port-forward`, which comes by loopback; with it at /dashboard of the API.
    yield "DASHBOARD_PORT", str(DASHBOARD_PORT)
    yield "METRICS_HOST", "0.0.0.0"  # noqa: S104
    yield "METRICS_PORT", str(METRICS_PORT)
    yield "ADVERTISE_API", f"{setup.host(PART)}:{API_PORT}"
    yield "ADVERTISE_XDS", f"$(POD_IP):{XDS_PORT}"
    yield "ADVERTISE_METRICS", f"$(POD_IP):{METRICS_PORT}"
    yield "TRUST_DOMAIN", setup.values.trust_domain
    yield "SEALING_KEY", f"env:{_SEALING_VARIABLE}"
    yield "REPLICA", "$(POD_NAME)"
    yield "NAMES", json.dumps(_names(setup))
    yield "OPERATOR_TOKEN_FILE", f"{OPERATOR_DIRECTORY}/{OPERATOR_TOKEN}"
    yield "BUNDLE_FILE", _BUNDLE
    # Kubelets take a minute and a half to bring a ConfigMap that has changed.
    yield "TRUST_PROPAGATION", "300"
    yield "LEASE_TTL", str(LEASE_SECONDS)
    yield "SERVICE_ACCOUNT_REVIEW", "true"
    yield "LOG_LEVEL", setup.values.log_level.value


def _names(setup: Setup) -> list[str]:
    """By which the API is called, in the cluster and through `kubectl port-forward`."""
    service, inside = setup.named(PART), setup.host(PART)
    whole = f"{inside}.{setup.values.cluster_domain}"
    return [service, f"{service}.{setup.namespace}", inside, whole, "localhost"]


def _publisher(setup: Setup) -> Document:
    """Puts the mesh's roots, which the control plane writes into a file, where the cluster finds them."""
    return container(
        setup,
        "publish-roots",
        ["weft", "kubernetes", "publish-roots"],
        [f"--file={_BUNDLE}", f"--config-map={setup.roots}", f"--health-port={PUBLISHER_PORT}"],
        setup.values.control.publisher_resources,
        ports=[{"name": "published", "containerPort": PUBLISHER_PORT, "protocol": "TCP"}],
        **probes("/livez", "/readyz", PUBLISHER_PORT),
        volumeMounts=[mounted("run", RUN_DIRECTORY), TMP],
    )
