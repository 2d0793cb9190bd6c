"""The mesh's roots where sidecars look for them: copies of the installation's ConfigMap.

A copy is in every namespace whose pods get sidecars: one with the label `weft.dev/injection: enabled`, or
with an AgentDeployment in it. It goes with the last of these. What others made of the name stays theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from weft.errors import NotFound
from weft.kubernetes.controller.following import Following
from weft.kubernetes.controller.kinds import CONFIG_MAP, CUSTOM_KINDS, NAMESPACE, Document, Key
from weft.kubernetes.controller.loop import Source
from weft.kubernetes.controller.parts import Parts
from weft.kubernetes.injection_settings import ROOTS_FILE

logger = logging.getLogger(__name__)

INJECTION_LABEL: Final = "weft.dev/injection"
"""Of a namespace: `enabled` where its pods get sidecars."""
MANAGED_LABEL: Final = "app.kubernetes.io/managed-by"

LOOK_AGAIN: Final = 300.0
"""Seconds after which a copy is looked at though nothing is known to have changed: they are not watched, for
which it would take the right to read every ConfigMap."""


def gets_sidecars(namespace: Document) -> bool:
    """Whether a namespace's pods get sidecars, by its label."""
    return (namespace["metadata"].get("labels") or {}).get(INJECTION_LABEL) == "enabled"


def ends(document: Document) -> bool:
    """Whether an object is being deleted."""
    return bool(document["metadata"].get("deletionTimestamp"))


class Roots:
    """Copies of the ConfigMap with the mesh's roots; the keys are namespaces."""

    name = "roots"

    def __init__(self, parts: Parts, config_map: str) -> None:
        """`config_map` is the name, in Weft's own namespace as in all others."""
        self._cluster = parts.cluster
        self._reports = parts.reports
        self._original = Key(parts.namespace, config_map)
        self._config_maps = Following(parts.cluster, CONFIG_MAP, namespace=parts.namespace)
        self._namespaces = parts.following(NAMESPACE)
        self._agent_deployments = parts.following(CUSTOM_KINDS["AgentDeployment"])
        self.sources = (
            Source(self._namespaces),
            Source(self._config_maps, self._everywhere),
            Source(self._agent_deployments, lambda each: (Key("", each["metadata"]["namespace"]),)),
        )

    def _everywhere(self, config_map: Document) -> Iterable[Key]:
        return self._namespaces.objects if config_map["metadata"]["name"] == self._original.name else ()

    async def reconcile(self, key: Key) -> float | None:
        """See to the copy in one namespace."""
        namespace = self._namespaces.objects.get(key)
        if namespace is None or ends(namespace) or key.name == self._original.namespace:
            return None
        place = Key(key.name, self._original.name)
        found = await self._cluster.get(CONFIG_MAP, place)
        ours = found is not None and (found["metadata"].get("labels") or {}).get(MANAGED_LABEL) == "weft"
        if not self._wanted(namespace):
            if found is not None and ours:
                await self._cluster.delete(CONFIG_MAP, place, uid=found["metadata"]["uid"])
            return None
        if found is not None and not ours:
            await self._told_of_others(found)
            return LOOK_AGAIN
        original = self._config_maps.objects.get(self._original)
        roots = ((original or {}).get("data") or {}).get(ROOTS_FILE)
        if roots and (found is None or (found.get("data") or {}).get(ROOTS_FILE) != roots):
            await self._copy(place, roots)
        return LOOK_AGAIN

    def _wanted(self, namespace: Document) -> bool:
        name = namespace["metadata"]["name"]
        return gets_sidecars(namespace) or any(
            each.namespace == name for each in self._agent_deployments.objects
        )

    async def _copy(self, place: Key, roots: str) -> None:
        document = {
            "apiVersion": CONFIG_MAP.api_version,
            "kind": CONFIG_MAP.kind,
            "metadata": {
                "name": place.name,
                "namespace": place.namespace,
                "labels": {"app.kubernetes.io/name": "weft", MANAGED_LABEL: "weft"},
            },
            "data": {ROOTS_FILE: roots},
        }
        try:
            await self._cluster.apply(CONFIG_MAP, document)
        except NotFound:
            # The namespace went meanwhile.
            return
        logger.info("the mesh's roots are in ConfigMap %s", place)

    async def _told_of_others(self, found: Document) -> None:
        note = (
            f"sidecars of this namespace take the mesh's roots from this ConfigMap, which Weft did not make "
            f"and does not keep up to date: delete it, or give it the label {MANAGED_LABEL}=weft"
        )
        await self._reports.event(found, "Warning", "RootsNotKept", note)
