"""The controller: a Deployment of which one pod works, and the others wait."""

from __future__ import annotations

from typing import Final

from weft.kubernetes.first_keys import OPERATOR_TOKEN
from weft.kubernetes.installation.injection_flags import injection_flags
from weft.kubernetes.installation.pods import (
    OPERATOR_DIRECTORY,
    POD_FIELDS,
    ROOTS_PATH,
    TMP,
    TRUST_DIRECTORY,
    container,
    deployment,
    disruption_budget,
    mounted,
    pod,
    probes,
    roots_volume,
    scraped,
    secret_volume,
    service_account,
)
from weft.kubernetes.installation.rbac import (
    clusterwide,
    controller_own_rules,
    controller_rules,
    namespaced,
    secret_readers,
)
from weft.kubernetes.installation.setup import HEALTH_PORT, Document, Setup

PART: Final = "controller"
_GRACE: Final = 30


def controller(setup: Setup) -> list[Document]:
    """Account, rights, Deployment, and how many may be away; nothing where there is to be none."""
    values = setup.values.controller
    if not values.enabled:
        return []
    return [
        service_account(setup, PART),
        *namespaced(setup, PART, controller_own_rules()),
        *clusterwide(setup, PART, controller_rules(setup)),
        *secret_readers(setup),
        deployment(setup, PART, _template(setup), values.replicas),
        *([disruption_budget(setup, PART)] if values.replicas > 1 else []),
    ]


def _template(setup: Setup) -> Document:
    process = container(
        setup,
        "controller",
        ["weft", "kubernetes", "controller"],
        [
            f"--name={setup.name}",
            "--listen=$(POD_IP)",
            f"--health-port={HEALTH_PORT}",
            f"--token-file={OPERATOR_DIRECTORY}/{OPERATOR_TOKEN}",
            f"--trust-bundle={ROOTS_PATH}",
            *(f"--only-in={each}" for each in setup.values.controller.namespaces),
            *injection_flags(setup),
        ],
        setup.values.controller.resources,
        env=list(POD_FIELDS),
        ports=[{"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"}],
        **probes("/livez", "/readyz", HEALTH_PORT),
        volumeMounts=[mounted("trust", TRUST_DIRECTORY), mounted("operator", OPERATOR_DIRECTORY), TMP],
    )
    volumes = [
        roots_volume(setup),
        secret_volume("operator", setup.named("operator-token"), [OPERATOR_TOKEN]),
    ]
    return pod(
        setup,
        PART,
        setup.named(PART),
        [process],
        volumes,
        token=True,
        grace=_GRACE,
        annotations=scraped(setup, HEALTH_PORT),
    )
