"""The webhooks: the Deployment that answers, and when the cluster's API asks it."""

from __future__ import annotations

from typing import Final

from weft.kubernetes.custom_resources import GROUP, VERSION
from weft.kubernetes.installation.injection_flags import injection_flags
from weft.kubernetes.installation.pods import (
    LEAVE,
    LEAVE_SECONDS,
    POD_FIELDS,
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
)
from weft.kubernetes.installation.rbac import clusterwide, webhook_rules
from weft.kubernetes.installation.setup import HEALTH_PORT, WEBHOOK_PORT, Document, Setup

PART: Final = "webhook"
KEYS_DIRECTORY: Final = "/etc/weft/webhook"
_KEYS: Final = ("ca.crt", "tls.crt", "tls.key")
_API: Final = "admissionregistration.k8s.io/v1"
_TIMEOUT: Final = 5
"""Seconds after which the cluster goes on without an answer."""
_GRACE: Final = 30


def webhook(setup: Setup) -> list[Document]:
    """Account, rights, Service, Deployment and both configurations; nothing where there is to be none."""
    values = setup.values.webhook
    if not values.enabled:
        return []
    return [
        service_account(setup, PART),
        *clusterwide(setup, PART, webhook_rules(setup)),
        _service(setup),
        deployment(setup, PART, _template(setup), values.replicas),
        *([disruption_budget(setup, PART)] if values.replicas > 1 else []),
        _injector(setup),
        _validator(setup),
    ]


def _service(setup: Setup) -> Document:
    ports = [{"name": "webhook", "port": 443, "targetPort": "webhook", "protocol": "TCP"}]
    spec = {"type": "ClusterIP", "selector": setup.selector(PART), "ports": ports}
    return setup.document("v1", "Service", PART, spec=spec)


def _template(setup: Setup) -> Document:
    process = container(
        setup,
        "webhook",
        ["weft", "kubernetes", "webhook"],
        [
            f"--name={setup.name}",
            "--listen=$(POD_IP)",
            f"--port={WEBHOOK_PORT}",
            f"--health-port={HEALTH_PORT}",
            f"--keys={KEYS_DIRECTORY}",
            *injection_flags(setup),
        ],
        setup.values.webhook.resources,
        env=list(POD_FIELDS),
        ports=[
            {"name": "webhook", "containerPort": WEBHOOK_PORT, "protocol": "TCP"},
            {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
        ],
        **probes("/livez", "/readyz", HEALTH_PORT),
        lifecycle=LEAVE,
        volumeMounts=[mounted("keys", KEYS_DIRECTORY), TMP],
    )
    volumes = [secret_volume("keys", setup.named("webhook"), _KEYS)]
    return pod(
        setup,
        PART,
        setup.named(PART),
        [process],
        volumes,
        token=True,
        grace=_GRACE + LEAVE_SECONDS,
        annotations=scraped(setup, HEALTH_PORT),
    )


# Both without caBundle: the process puts its authority there, and applying them again leaves it there.
def _injector(setup: Setup) -> Document:
    ours = [setup.namespace, "kube-system", "kube-public", "kube-node-lease"]
    asked = {
        "name": f"inject.{GROUP}",
        **_asking(setup, "/mutate-pods"),
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pods"],
                "scope": "Namespaced",
            }
        ],
        "namespaceSelector": {
            "matchLabels": {f"{GROUP}/injection": "enabled"},
            "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ours}],
        },
        "objectSelector": {
            "matchExpressions": [{"key": f"{GROUP}/inject", "operator": "NotIn", "values": ["false"]}]
        },
        "reinvocationPolicy": "IfNeeded",
    }
    return setup.cluster_document(
        _API, "MutatingWebhookConfiguration", PART, name=setup.named("injector"), webhooks=[asked]
    )


def _validator(setup: Setup) -> Document:
    asked = {
        "name": f"validate.{GROUP}",
        **_asking(setup, "/validate"),
        "rules": [
            {
                "apiGroups": [GROUP],
                "apiVersions": [VERSION],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["*"],
                "scope": "Namespaced",
            }
        ],
    }
    return setup.cluster_document(
        _API, "ValidatingWebhookConfiguration", PART, name=setup.named("validator"), webhooks=[asked]
    )


def _asking(setup: Setup, path: str) -> Document:
    service = {"name": setup.named(PART), "namespace": setup.namespace, "path": path, "port": 443}
    return {
        "clientConfig": {"service": service},
        # A webhook that is down holds up nobody.
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": _TIMEOUT,
        "admissionReviewVersions": ["v1"],
    }
