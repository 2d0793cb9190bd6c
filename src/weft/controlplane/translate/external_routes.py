"""Virtual hosts (RDS) from which calls go to agents without a sidecar."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.route.v3.route_components_pb2 import VirtualHost

from weft.controlplane.translate.destination import Destination, of_type
from weft.controlplane.translate.outbound_access import ExternalCalls
from weft.model.route import RouteRule


def suit_external(
    host: VirtualHost, destination: Destination, rules: Iterable[RouteRule], external: ExternalCalls
) -> None:
    """Have `host`, which is `destination`'s, suit agents without a sidecar, if any of its routes leads there.

    A split or mirror that leads to one is guarded as a whole: which part a call gets is settled later.
    """
    reached = {destination, *_led_to(destination, rules)}
    if external.lead_from(reached):
        _call_by_own_name(host)
        external.guard(host, reached)


def _led_to(destination: Destination, rules: Iterable[RouteRule]) -> Iterable[Destination]:
    """Where the splits and mirrors of a destination's rules lead."""
    for rule in rules:
        for part in (*(rule.split or ()), *([rule.mirror] if rule.mirror is not None else ())):
            yield of_type(part.type or destination.name, part.version)


def _call_by_own_name(host: VirtualHost) -> None:
    """Say in `host` the name of the endpoint where it has one, as its server expects; few have."""
    for route in host.routes:
        if route.HasField("route"):
            route.route.auto_host_rewrite.value = True
