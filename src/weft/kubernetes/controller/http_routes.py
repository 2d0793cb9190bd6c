"""HTTPRoutes of the Gateway API with a Service for a parent: each type of agent they are for gets a Route.

The Route is a custom resource beside the HTTPRoutes it is made of, and comes into the mesh like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from weft.errors import Conflict, Denied, InvalidRequest, NotFound
from weft.kubernetes import http_route
from weft.kubernetes.agent_service import agent_service
from weft.kubernetes.controller.agent_deployments import SERVICE
from weft.kubernetes.controller.kinds import CUSTOM_KINDS, NAMESPACE, ClusterKind, Document, Key, key_of
from weft.kubernetes.controller.loop import Source
from weft.kubernetes.controller.made import MADE_OF, custom_resource, made_of, put
from weft.kubernetes.controller.parts import Parts
from weft.kubernetes.controller.roots import ends, gets_sidecars
from weft.kubernetes.http_route_status import new_problems, route_status, verdict_conditions
from weft.kubernetes.http_route_translation import HttpRouteTranslation, TypeRoute, translated_routes
from weft.model.names import MAX_NAME_LENGTH

HTTP_ROUTE: Final = ClusterKind(http_route.GROUP, "v1", http_route.KIND, "httproutes")
ROUTE: Final = CUSTOM_KINDS["Route"]

_HTTP_ROUTES: Final = "httproutes"

LOOK_AGAIN: Final = 300.0
"""Seconds until all is looked at again, though nothing is known to have changed."""

_EVERYTHING: Final = Key("", "all")
"""HTTPRoutes of one type stand in each other's way, and one may be for several types: all are one key."""

_PREFIX = "httproute-"


@dataclass(slots=True)
class _Outcome:
    """What became of the Routes."""

    made: dict[str, Document] = field(default_factory=dict)
    """By type, as the cluster has them."""
    refused: dict[str, str] = field(default_factory=dict)
    """By type: why there is none."""
    again: Conflict | None = None


class HttpRoutes:
    """Makes Routes of HTTPRoutes, and tells in their status what became of that."""

    name = "http-routes"

    def __init__(self, parts: Parts) -> None:
        self._cluster = parts.cluster
        self._reports = parts.reports
        self._http_routes = parts.following(HTTP_ROUTE)
        self._services = parts.following(SERVICE)
        self._namespaces = parts.following(NAMESPACE)
        self._routes = parts.following(ROUTE, f"{MADE_OF}={_HTTP_ROUTES}")
        followed = (self._http_routes, self._services, self._namespaces, self._routes)
        self.sources = tuple(Source(each, _all) for each in followed)

    async def reconcile(self, _: Key) -> float | None:
        """See to all HTTPRoutes."""
        documents = [each for each in self._http_routes.objects.values() if not ends(each)]
        meshed = {
            each["metadata"]["name"] for each in self._namespaces.objects.values() if gets_sidecars(each)
        }
        services = [agent_service(each, meshed) for each in self._services.objects.values()]
        translation = translated_routes(documents, services, meshed)
        outcome = _Outcome()
        await self._delete_others({_place(each, route) for each, route in translation.routes.items()})
        for agent_type, route in translation.routes.items():
            await self._make(agent_type, route, outcome)
        for document in documents:
            await self._tell(document, translation, outcome)
        if outcome.again is not None:
            raise outcome.again
        return LOOK_AGAIN if documents else None

    async def _delete_others(self, wanted: Collection[Key]) -> None:
        for key, document in list(self._routes.objects.items()):
            if key not in wanted:
                await self._cluster.delete(ROUTE, key, uid=document["metadata"]["uid"])

    async def _make(self, agent_type: str, route: TypeRoute, outcome: _Outcome) -> None:
        place = _place(agent_type, route)
        sources = (self._http_routes.objects.get(Key(*each)) for each in route.sources)
        owners = [each for each in sources if each is not None]
        wanted = custom_resource(ROUTE, place, _HTTP_ROUTES, owners, route.spec)
        found: Document | None = None
        try:
            found = self._routes.objects.get(place) or await self._cluster.get(ROUTE, place)
            if found is not None and made_of(found) != _HTTP_ROUTES:
                outcome.refused[agent_type] = (
                    f"there is a Route {place} already, which is not made of HTTPRoutes: give it another name"
                )
                return
            outcome.made[agent_type] = await put(self._cluster, ROUTE, wanted, found)
        except (InvalidRequest, Denied, NotFound) as error:
            outcome.refused[agent_type] = error.detail
        except Conflict as error:
            outcome.again = error
            if found is not None:
                outcome.made[agent_type] = found

    async def _tell(self, document: Document, translation: HttpRouteTranslation, outcome: _Outcome) -> None:
        key = key_of(document)
        told = [
            (
                each.parent,
                verdict_conditions(
                    each, outcome.made.get(each.type or ""), outcome.refused.get(each.type or "")
                ),
            )
            for each in translation.verdicts.get((key.namespace, key.name), ())
        ]
        parents = route_status(document, told, datetime.now(UTC))
        if parents is None:
            return
        patch = {
            "metadata": {"resourceVersion": document["metadata"]["resourceVersion"]},
            "status": {"parents": parents},
        }
        try:
            await self._cluster.merge(HTTP_ROUTE, key, patch, subresource="status")
        except NotFound:
            return
        except Conflict as error:
            # Somebody else has written: it is looked at again once that is known here.
            outcome.again = error
            return
        for each in new_problems(document, (one for _, conditions in told for one in conditions)):
            await self._reports.event(document, "Warning", each.reason, each.message)


def _all(_: Document) -> Iterable[Key]:
    return (_EVERYTHING,)


def _place(agent_type: str, route: TypeRoute) -> Key:
    """Where the Route of a type is: beside its HTTPRoutes."""
    name = f"{_PREFIX}{agent_type}"
    if len(name) > MAX_NAME_LENGTH:
        digest = sha256(agent_type.encode()).hexdigest()[:8]
        name = f"{name[: MAX_NAME_LENGTH - 9]}-{digest}"
    return Key(route.namespace, name)
