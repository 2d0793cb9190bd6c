"""All documents of an installation, in the order in which they are to be applied."""

from __future__ import annotations

from collections.abc import Sequence

from weft.kubernetes.first_keys import DEFAULT_NAME
from weft.kubernetes.installation.bootstrap import bootstrap
from weft.kubernetes.installation.control import control
from weft.kubernetes.installation.controller import controller
from weft.kubernetes.installation.gateway import gateways
from weft.kubernetes.installation.monitoring import monitoring
from weft.kubernetes.installation.nats import nats
from weft.kubernetes.installation.network import network_policies
from weft.kubernetes.installation.setup import DEFAULT_NAMESPACE, Document, Setup
from weft.kubernetes.installation.webhook import webhook
from weft.kubernetes.installation_values import InstallationValues


def installation(
    values: InstallationValues | None = None,
    *,
    name: str = DEFAULT_NAME,
    namespace: str = DEFAULT_NAMESPACE,
) -> list[Document]:
    """The installation `name` in `namespace`, without that and without the definitions of custom resources.

    Raises InvalidRequest where a name is none.
    """
    setup = Setup(values or InstallationValues(), name, namespace)
    parts: Sequence[list[Document]] = (
        network_policies(setup),
        bootstrap(setup),
        nats(setup),
        control(setup),
        controller(setup),
        webhook(setup),
        gateways(setup),
        monitoring(setup),
    )
    return [document for part in parts for document in part]


def namespace_document(namespace: str = DEFAULT_NAMESPACE) -> Document:
    """The namespace of an installation, in which no pod may do more than it has to."""
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    labels = {"app.kubernetes.io/name": "weft", "app.kubernetes.io/part-of": "weft", **levels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
