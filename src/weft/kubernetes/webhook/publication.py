"""Telling API servers whom to believe: the webhooks' authority, put into their configurations."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

from weft.errors import NotFound
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.kinds import ClusterKind, Document, Key
from weft.kubernetes.webhook.certificates import believed

_GROUP: Final = "admissionregistration.k8s.io"
INJECTORS: Final = ClusterKind(
    _GROUP, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", namespaced=False
)
VALIDATORS: Final = ClusterKind(
    _GROUP, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", namespaced=False
)


def configurations(name: str) -> tuple[tuple[ClusterKind, Key], ...]:
    """Where an installation's webhooks are configured."""
    return (INJECTORS, Key("", f"{name}-injector")), (VALIDATORS, Key("", f"{name}-validator"))


async def publish(cluster: Cluster, name: str, authority: bytes) -> bool:
    """Have API servers believe webhooks by `authority` (PEM); whether that was news to them.

    Raises NotFound where a configuration of the installation is missing, and what the cluster's API raises.
    """
    news = [await _publish(cluster, kind, key, authority) for kind, key in configurations(name)]
    return any(news)


async def _publish(cluster: Cluster, kind: ClusterKind, key: Key, authority: bytes) -> bool:
    found = await cluster.get(kind, key)
    if found is None:
        raise NotFound(
            f"there is no {kind.kind} {key}: apply the installation's manifests, which have it, or take its "
            f"webhooks out of them"
        )
    webhooks = _believing(found, authority)
    if webhooks is None:
        return False
    # A list is replaced as a whole: only if nobody else has changed it meanwhile.
    version = {"resourceVersion": found["metadata"]["resourceVersion"]}
    await cluster.merge(kind, key, {"metadata": version, "webhooks": webhooks})
    return True


def _believing(configuration: Document, authority: bytes) -> list[Any] | None:
    """Its webhooks, each believed by `authority`; None if they are already."""
    webhooks = deepcopy(configuration.get("webhooks") or [])
    changed = False
    for each in webhooks:
        bundle = believed(each["clientConfig"].get("caBundle") or "", authority)
        if bundle is not None:
            each["clientConfig"]["caBundle"] = bundle
            changed = True
    return webhooks if changed else None
