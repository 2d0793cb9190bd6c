"""Services labelled `weft.dev/discover: "true"`, without sidecars behind them: each gets an ExternalAgent.

That is a custom resource beside the Service, with the addresses that are ready, and comes into the mesh like
any other. It goes when none is ready, and with the label.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from weft.errors import Denied, InvalidRequest, NotFound
from weft.kubernetes.agent_service import DISCOVER_LABEL
from weft.kubernetes.controller.agent_deployments import SERVICE
from weft.kubernetes.controller.kinds import CUSTOM_KINDS, ClusterKind, Document, Key
from weft.kubernetes.controller.loop import Source
from weft.kubernetes.controller.made import MADE_OF, custom_resource, made_of, put
from weft.kubernetes.controller.parts import Parts
from weft.kubernetes.controller.roots import ends
from weft.kubernetes.plain_service import SERVICE_NAME_LABEL, PlainService, plain_service
from weft.kubernetes.problem import Problem, Refusal

ENDPOINT_SLICE: Final = ClusterKind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
EXTERNAL_AGENT: Final = CUSTOM_KINDS["ExternalAgent"]

LOOK_AGAIN: Final = 300.0
"""Seconds until a Service is looked at again, though nothing is known to have changed."""

_DISCOVERED = f"{DISCOVER_LABEL}=true"
_SERVICE: Final = "service"


class PlainServices:
    """Makes ExternalAgents of Services."""

    name = "plain-services"

    def __init__(self, parts: Parts) -> None:
        self._cluster = parts.cluster
        self._reports = parts.reports
        self._services = parts.following(SERVICE, _DISCOVERED)
        # The cluster gives EndpointSlices the labels of their Service.
        self._slices = parts.following(ENDPOINT_SLICE, _DISCOVERED)
        self._made = parts.following(EXTERNAL_AGENT, f"{MADE_OF}={_SERVICE}")
        self.sources = (
            Source(self._services),
            Source(self._slices, _service_of),
            Source(self._made, _owners),
        )

    async def reconcile(self, key: Key) -> float | None:
        """See to one Service."""
        service = self._services.objects.get(key)
        found: PlainService | None = None
        problems: list[Problem] = []
        if service is not None and not ends(service):
            slices = (each for each in self._slices.objects.values() if key in _service_of(each))
            try:
                found = plain_service(service, slices)
                problems += found.problems
            except Refusal as refusal:
                problems.append(refusal.problem)
        wanted = _document(service, found) if service is not None and found is not None else None
        await self._delete_others(key, wanted)
        if wanted is not None and (problem := await self._make(key, wanted)) is not None:
            problems.append(problem)
        for each in problems:
            if service is not None:
                await self._reports.event(service, "Warning", each.reason, each.message)
        return LOOK_AGAIN if service is not None else None

    async def _delete_others(self, key: Key, wanted: Document | None) -> None:
        name = wanted["metadata"]["name"] if wanted is not None else None
        for at, document in list(self._made.objects.items()):
            if key in _owners(document) and at.name != name:
                await self._cluster.delete(EXTERNAL_AGENT, at, uid=document["metadata"]["uid"])

    async def _make(self, key: Key, wanted: Document) -> Problem | None:
        """Have it be there as `wanted`; what is against it."""
        at = Key(key.namespace, wanted["metadata"]["name"])
        found = self._made.objects.get(at) or await self._cluster.get(EXTERNAL_AGENT, at)
        if found is not None and key not in _owners(found):
            message = (
                f"there is an ExternalAgent {at} already, which is not made of this Service: name another "
                f"type in the annotation weft.dev/type, or delete one of them"
            )
            return Problem("NameTaken", message)
        try:
            await put(self._cluster, EXTERNAL_AGENT, wanted, found)
        except (InvalidRequest, Denied, NotFound) as error:
            return Problem("Refused", error.detail)
        return None


def _document(service: Document, plain: PlainService) -> Document | None:
    if plain.spec is None:
        return None
    at = Key(service["metadata"]["namespace"], plain.type)
    return custom_resource(EXTERNAL_AGENT, at, _SERVICE, [service], plain.spec)


def _service_of(endpoint_slice: Document) -> Iterable[Key]:
    metadata = endpoint_slice["metadata"]
    name = (metadata.get("labels") or {}).get(SERVICE_NAME_LABEL)
    return (Key(metadata["namespace"], name),) if name else ()


def _owners(external: Document) -> Iterable[Key]:
    """The Services of which an ExternalAgent is made."""
    metadata = external["metadata"]
    if made_of(external) != _SERVICE:
        return ()
    return tuple(
        Key(metadata["namespace"], each["name"])
        for each in metadata.get("ownerReferences") or ()
        if each.get("kind") == "Service"
    )
