"""Whether the cluster has the custom resources that this version of Weft knows, with all their fields."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cache
from typing import Any, Final

from weft.errors import MeshError
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.conditions import Reports
from weft.kubernetes.controller.kinds import CUSTOM_KINDS, NAMESPACE, ClusterKind, Document, Key
from weft.kubernetes.custom_resources import GROUP, VERSION, custom_resource_definitions

logger = logging.getLogger(__name__)

DEFINITION: Final = ClusterKind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)

LOOK_EVERY: Final = 300.0
"""Seconds between looks at the definitions."""

_SHOWN = 5  # of each kind's fields
_REASON = "DefinitionOutdated"


class Definitions:
    """What is lacking in the cluster's definitions. It stops nothing: kinds that are there go on."""

    def __init__(self, cluster: Cluster, reports: Reports, namespace: str) -> None:
        """What is lacking is told by an event about `namespace`, where Weft is installed."""
        self.lacking: tuple[str, ...] = ()
        """What it was at the last look, in words; empty if nothing."""
        self._cluster = cluster
        self._reports = reports
        self._namespace = namespace

    async def run(self) -> None:
        """Look, and tell, without end."""
        while True:
            try:
                await self.look()
            except MeshError as error:
                logger.warning("the definitions of custom resources cannot be looked at: %s", error.detail)
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Look now; tell where something is lacking that was not before. Raises what the cluster raises."""
        before, self.lacking = self.lacking, tuple([each async for each in self._lacking()])
        if not self.lacking or self.lacking == before:
            return
        text = (
            "custom resources of the cluster are not those of this version of Weft: "
            f"{'; '.join(self.lacking)}. Everything else goes on. Apply `weft kubernetes crds` of it"
        )
        logger.warning("%s", text)
        namespace = await self._cluster.get(NAMESPACE, Key("", self._namespace))
        if namespace is not None:
            await self._reports.event(namespace, "Warning", _REASON, text)

    async def _lacking(self) -> AsyncIterator[str]:
        # In a thread: making them takes a good part of a second.
        for kind, own in (await asyncio.to_thread(_own_schemas)).items():
            name = f"{CUSTOM_KINDS[kind].plural}.{GROUP}"
            found = await self._cluster.get(DEFINITION, Key("", name))
            fields = [] if found is None else list(missing_fields(own, served_schema(found)))
            if found is None:
                yield f"there is no kind {kind}"
            elif fields:
                more = f" and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else ""
                yield f"{kind} lacks {', '.join(fields[:_SHOWN])}{more}"


def missing_fields(own: Mapping[str, Any], found: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """The fields of a schema, by path, that another one does not have."""
    for name, inside in (own.get("properties") or {}).items():
        path = f"{where}.{name}".removeprefix(".")
        other = (found.get("properties") or {}).get(name)
        if other is None:
            yield path
        else:
            yield from missing_fields(inside, other, path)
    for keyword in ("items", "additionalProperties"):
        inside, other = own.get(keyword), found.get(keyword)
        if isinstance(inside, dict) and isinstance(other, dict):
            yield from missing_fields(inside, other, where)


@cache
def _own_schemas() -> Mapping[str, Mapping[str, Any]]:
    """The schemas of this version of Weft, by kind."""
    return {each["spec"]["names"]["kind"]: served_schema(each) for each in custom_resource_definitions()}


def served_schema(definition: Document) -> Mapping[str, Any]:
    """The schema of the version that this version of Weft uses; an empty one if that is not there."""
    for version in (definition.get("spec") or {}).get("versions") or ():
        if version.get("name") == VERSION and version.get("served"):
            return dict((version.get("schema") or {}).get("openAPIV3Schema") or {})
    return {}
