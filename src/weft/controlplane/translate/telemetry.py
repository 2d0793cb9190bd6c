"""What Telemetry resources come to for each destination, and the names by which Envoy tells of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.extensions.filters.http.header_to_metadata.v3.header_to_metadata_pb2 import (
    Config as HeaderToMetadata,
)

from weft.controlplane.translate.destination import Destination, of_type
from weft.controlplane.translate.http_listener import turned_on
from weft.controlplane.translate.policy import target_destination
from weft.controlplane.translate.tracing import route_tracing
from weft.model.resource import AnyResource
from weft.model.route import RouteRule
from weft.model.telemetry import AccessLogging, TelemetrySpec
from weft.model.telemetry_wire import DESTINATION_KEY, LOG_KEY, NAMESPACE

LOG_FILTER = "weft.log"
"""Name of the filter that notes that a line is wanted of a call; off, but where a host turns it on."""


@dataclass(frozen=True, slots=True)
class Telemetries:
    """All that is declared."""

    default: TelemetrySpec = field(default_factory=TelemetrySpec)
    own: Mapping[Destination, TelemetrySpec] = field(default_factory=dict)

    @classmethod
    def declared(cls, resources: Iterable[AnyResource]) -> Telemetries:
        """Those among `resources`."""
        specs = [each.spec for each in resources if isinstance(each.spec, TelemetrySpec)]
        default = next((each for each in specs if each.target is None), TelemetrySpec())
        return cls(default, {target_destination(each.target): each for each in specs if each.target})

    def of(self, destination: Destination) -> TelemetrySpec:
        """What is in force for a destination: its own, whose missing fields the mesh's default gives."""
        own = self.own.get(destination)
        if own is None:
            return self.default
        return self.default.model_copy(update={each: getattr(own, each) for each in own.model_fields_set})

    def sampling(self, destination: Destination) -> float | None:
        """Percent of the calls that begin a trace; None: as the caller's sidecar says."""
        return self.of(destination).tracing.sampling_percent

    def records(self, agent_type: str) -> bool:
        """Whether agents of this type are to record what they are asked and answer."""
        return self.of(of_type(agent_type)).recording.messages

    @property
    def any_log(self) -> bool:
        """Whether lines are written of any calls."""
        return any(each.access_log is not AccessLogging.NONE for each in (self.default, *self.own.values()))


NO_TELEMETRY = Telemetries()


def name_host(host: VirtualHost, destination: str) -> None:
    """Have spans, statistics and logs of the calls of a virtual host name their destination."""
    host.metadata.filter_metadata[NAMESPACE].update({DESTINATION_KEY: destination})


def name_route(route: Route, destination: str) -> None:
    """The same for a route, where its virtual host has no name."""
    route.metadata.filter_metadata[NAMESPACE].update({DESTINATION_KEY: destination})


def sample(route: Route, rule: RouteRule, percent: float | None) -> None:
    """Have so many percent of a route's calls begin a trace; what its rule says counts first."""
    if rule.tracing is not None and rule.tracing.sampling_percent is not None:
        percent = rule.tracing.sampling_percent
    if percent is not None:
        route.tracing.CopyFrom(route_tracing(percent))


def sample_others(hosts: Iterable[VirtualHost], percent: float | None) -> None:
    """The same for all routes of which nothing has been said yet."""
    if percent is None:
        return
    for host in hosts:
        for route in host.routes:
            if not route.HasField("tracing"):
                route.tracing.CopyFrom(route_tracing(percent))


def log_calls(host: VirtualHost, which: AccessLogging) -> None:
    """Have lines written of the calls of a virtual host."""
    if which is AccessLogging.NONE:
        return
    config = HeaderToMetadata()
    rule = config.request_rules.add(header=":method")
    rule.on_header_present.metadata_namespace = NAMESPACE
    rule.on_header_present.key = LOG_KEY
    rule.on_header_present.value = which.value
    host.typed_per_filter_config[LOG_FILTER].Pack(config)


def turn_on_log(host: VirtualHost) -> None:
    """Have the filter look at calls of a virtual host that become those of another."""
    if LOG_FILTER not in host.typed_per_filter_config:
        host.typed_per_filter_config[LOG_FILTER].Pack(turned_on())
