"""One sidecar's aggregated stream: its subscriptions, in the order in which no call is lost. No I/O.

Make before break. Clusters come first, since routes refer to them, and their endpoints and secrets at once,
since a new cluster is not used before it has them. Envoy holds back the ACK of clusters until all of them are
ready for use; so listeners, and after them routes, wait for that ACK. What is gone is taken away last:
clusters when the client has accepted listeners and routes that do without them.
"""

from __future__ import annotations

from itertools import count

from weft.controlplane.xds.delta import Request, Response, Subscription, Verdict
from weft.controlplane.xds.snapshot import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES, SECRET, Snapshot
from weft.errors import InvalidRequest

SERVED_TYPES = (CLUSTER, ENDPOINTS, SECRET, LISTENER, ROUTES, EXTENSION)

_STEPS = (
    (CLUSTER, False),
    (ENDPOINTS, False),
    (SECRET, False),
    (EXTENSION, True),
    (LISTENER, True),
    (ROUTES, True),
    (CLUSTER, True),
    (ENDPOINTS, True),
    (SECRET, True),
)
"""Type, and whether this is where the client learns what is gone."""

_AWAITED = {LISTENER: (CLUSTER,), ROUTES: (CLUSTER, LISTENER)}
"""Types whose outstanding response is waited for before one of this type is sent."""

_MAKERS = frozenset({CLUSTER, ENDPOINTS, SECRET})
"""Types of which nothing is taken away before the routes do without it."""


class AggregatedStream:
    """The subscriptions of one client, all types on one stream."""

    def __init__(self) -> None:
        self._subscriptions = {type_url: Subscription(type_url) for type_url in SERVED_TYPES}
        self._nonces = count(1)

    def receive(self, request: Request) -> Verdict | None:
        """Take in a request; return the verdict it gives on a response, if it does.

        Raises InvalidRequest for a type that is not served, or too many names.
        """
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            raise InvalidRequest(f"resources of type {request.type_url[:200]!r} are not served")
        return subscription.receive(request)

    def responses(self, snapshot: Snapshot) -> list[Response]:
        """What is to be sent now that `snapshot` is the state of things, in this order."""
        return [
            response
            for type_url, removals in _STEPS
            if (response := self._next(type_url, snapshot, removals=removals)) is not None
        ]

    def subscriptions(self) -> list[Subscription]:
        """The subscriptions to what the client has asked for, in the order in which types are served."""
        return [each for each in self._subscriptions.values() if each.started]

    def in_sync(self, snapshot: Snapshot) -> bool:
        """Whether the client has accepted all it subscribed to as it is in `snapshot`."""
        return all(each.in_sync(snapshot.of_type(each.type_url)) for each in self.subscriptions())

    def _next(self, type_url: str, snapshot: Snapshot, *, removals: bool) -> Response | None:
        if any(self._subscriptions[each].outstanding for each in _AWAITED.get(type_url, ())):
            return None
        if removals and type_url in _MAKERS and not self._routing_in_sync(snapshot):
            return None
        subscription = self._subscriptions[type_url]
        response = subscription.take(snapshot.of_type(type_url), str(next(self._nonces)), removals=removals)
        if response is not None and type_url == CLUSTER:
            # A cluster that Envoy gets anew waits for endpoints, even where the old one has the same.
            self._subscriptions[ENDPOINTS].renew(cluster.name for cluster in response.resources)
        return response

    def _routing_in_sync(self, snapshot: Snapshot) -> bool:
        listeners, routes = self._subscriptions[LISTENER], self._subscriptions[ROUTES]
        if self._subscriptions[CLUSTER].resumed and not (listeners.started and routes.started):
            # A client that comes back has listeners and routes of which it has not told yet; but for routes
            # it will ask only if it has listeners.
            return listeners.started and listeners.in_sync(snapshot.listeners) and not snapshot.listeners
        return self._settled(listeners, snapshot) and self._settled(routes, snapshot)

    def _settled(self, subscription: Subscription, snapshot: Snapshot) -> bool:
        return not subscription.started or subscription.in_sync(snapshot.of_type(subscription.type_url))
