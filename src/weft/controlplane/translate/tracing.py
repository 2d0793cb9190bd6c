"""Spans: what each listener tells the control plane of calls, and of which ones.

Envoy begins a trace with a share of the calls that bring no `traceparent`, and follows one that does, both
ways: what belongs to a kept trace is kept, what belongs to another is not. Of itself it would draw lots for
those, too. So every call that brings one says so to Envoy once more, as a client that wants to be traced, and
the sampler then goes by the `traceparent`. `x-weft-trace` does the same for a single call. That takes no
expression, which would cost every call some microseconds, and routes can have a share of their own.

An inbound listener follows traces only. The outside listener begins them, whatever its callers say, who are
not the mesh's own. There is no span for each attempt: that would cost every call a tenth of its speed.
Attempts that fail are told of by a log (`weft.controlplane.translate.trace_logs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.config.route.v3.route_components_pb2 import Tracing as RouteTracing
from envoy.config.trace.v3.opentelemetry_pb2 import OpenTelemetryConfig
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from envoy.extensions.tracers.opentelemetry.resource_detectors.v3.static_config_resource_detector_pb2 import (
    StaticConfigResourceDetectorConfig,
)
from envoy.extensions.tracers.opentelemetry.samplers.v3.parent_based_sampler_pb2 import (
    ParentBasedSamplerConfig,
)
from envoy.extensions.tracers.opentelemetry.samplers.v3.trace_id_ratio_based_sampler_pb2 import (
    TraceIdRatioBasedSamplerConfig,
)
from envoy.type.v3.percent_pb2 import FractionalPercent
from google.protobuf.message import Message

from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.replies import DESTINATION_HEADER, ERROR_HEADER, header
from weft.model import llm_wire
from weft.model.node import Node
from weft.model.telemetry_wire import CLUSTER, DESTINATION_KEY, NAMESPACE, TOOL_KEY, TRACE_HEADER, VERSION_KEY

WANTED_HEADER = "x-client-trace-id"
"""Envoy's own: a call with it is to be traced, as far as its `traceparent` does not say no. Nobody else sets
it. It is what the call's `traceparent` was when it came, for logs: Envoy replaces that one."""

EXPORT_TIMEOUT = 5.0
"""Seconds that the control plane has to take spans."""

MAX_UNSENT = 2048
"""Spans that wait to be sent, at most; further ones are lost."""

PATH = "%PATH(NQ:PATH):300%"
"""The path of a call without its query, in which people put secrets."""

DESTINATION = (
    f"%METADATA(VIRTUAL_HOST:{NAMESPACE}:{DESTINATION_KEY})%%METADATA(ROUTE:{NAMESPACE}:{DESTINATION_KEY})%"
)
"""Whom a call is for: of the virtual host, or else of the route."""

VERSION = f"%UPSTREAM_METADATA(envoy.lb:{VERSION_KEY})%"
INSTANCE = "%UPSTREAM_METADATA(envoy.lb:instance)%"
CALLED_CLUSTER = "%UPSTREAM_CLUSTER_RAW%"
TOOL = f"%DYNAMIC_METADATA(weft.tools:{TOOL_KEY})%"

CALL_TAGS: Mapping[str, str] = {
    "http.url": PATH,
    "weft.error": f"%RESP({ERROR_HEADER}):64%",
    "weft.context": f"%REQ({llm_wire.CONTEXT_HEADER}):200%",
}
"""Of every call, by the names that spans have them under."""

OUTBOUND_TAGS: Mapping[str, str] = {
    **CALL_TAGS,
    "weft.listener": "outbound",
    "weft.destination": DESTINATION,
    "weft.cluster": CALLED_CLUSTER,
    "weft.route": "%ROUTE_NAME%",
    "weft.version": VERSION,
    "weft.instance": INSTANCE,
    "weft.tool": TOOL,
    "weft.authority": f"%REQ({DESTINATION_HEADER}):256%",
    "weft.attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "weft.details": "%RESPONSE_CODE_DETAILS%",
    **{
        f"weft.llm.{name}": f"%DYNAMIC_METADATA({llm_wire.METADATA}:{key})%"
        for name, key in (
            ("pool", "pool"),
            ("model", "model"),
            ("endpoint", "endpoint"),
            ("input_tokens", "prompt_tokens"),
            ("output_tokens", "completion_tokens"),
            ("cached_tokens", "cached_tokens"),
        )
    },
    "weft.llm.provider": f"%RESP({llm_wire.PROVIDER_HEADER}):128%",
}
"""Of what an agent calls."""

INBOUND_TAGS: Mapping[str, str] = {
    **CALL_TAGS,
    "weft.listener": "inbound",
    "weft.caller": "%DOWNSTREAM_PEER_URI_SAN%",
    "weft.details": "%RESPONSE_CODE_DETAILS%",
}
"""Of what comes to an agent."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Whose Envoy tells of calls, and which share of those that begin a trace."""

    service: str
    instance: str
    version: str = ""
    sampling: float = 0.0
    """Percent."""

    @classmethod
    def of(cls, node: Node) -> Reporter:
        """Of a sidecar."""
        if node.inbound is None:
            return cls("caller", node.id, sampling=node.trace_sampling)
        return cls(node.inbound.type, node.id, node.inbound.version, node.trace_sampling)


UNKNOWN = Reporter("unknown", "")
"""Of listeners without a sidecar."""


def trace_outbound(manager: HttpConnectionManager, reporter: Reporter) -> None:
    """Have a listener begin traces and follow them. `follow` goes with it."""
    _trace(manager, reporter, OUTBOUND_TAGS, _by_parent(100))
    manager.tracing.random_sampling.value = reporter.sampling


def trace_inbound(manager: HttpConnectionManager, reporter: Reporter) -> None:
    """Have a listener follow the traces of calls that belong to one, and begin none."""
    _trace(manager, reporter, INBOUND_TAGS, _by_parent(0))


def trace_outside(manager: HttpConnectionManager, reporter: Reporter, tags: Mapping[str, str]) -> None:
    """Have a listener begin traces, also where callers, who are not the mesh's, want one, or none."""
    _trace(manager, reporter, {**CALL_TAGS, "weft.listener": "outside", **tags})
    manager.tracing.random_sampling.value = reporter.sampling
    manager.tracing.client_sampling.value = 0


def follow(mutation: HeaderMutation) -> None:
    """Tell Envoy, of a call that has a `traceparent` or wants a trace, that it is to be traced."""
    wanted = mutation.mutations.add().append
    wanted.CopyFrom(header(WANTED_HEADER, f"%REQ({TRACE_HEADER}?traceparent)%"))
    mutation.mutations.add().remove = TRACE_HEADER


def never_traced(route: Route) -> Route:
    """The same route, whose calls have no spans, whoever wants some."""
    route.tracing.overall_sampling.CopyFrom(_fraction(0))
    return route


def route_tracing(percent: float) -> RouteTracing:
    """For a route: the share of the calls that begin a trace."""
    return RouteTracing(
        random_sampling=_fraction(percent), client_sampling=_fraction(100), overall_sampling=_fraction(100)
    )


def _trace(
    manager: HttpConnectionManager,
    reporter: Reporter,
    tags: Mapping[str, str],
    sampler: TypedExtensionConfig | None = None,
) -> None:
    tracing = manager.tracing
    tracing.random_sampling.value = 100
    tracing.operation = f"{tags['weft.listener']} %ROUTE_NAME%"
    for name, value in tags.items():
        tracing.custom_tags.add(tag=name, value=value)
    exporter = OpenTelemetryConfig(service_name=reporter.service, resource_detectors=[_resource(reporter)])
    exporter.max_cache_size.value = MAX_UNSENT
    exporter.grpc_service.envoy_grpc.cluster_name = CLUSTER
    exporter.grpc_service.timeout.CopyFrom(duration(EXPORT_TIMEOUT))
    if sampler is not None:
        exporter.sampler.CopyFrom(sampler)
    tracing.provider.name = "envoy.tracers.opentelemetry"
    tracing.provider.typed_config.Pack(exporter)


def _resource(reporter: Reporter) -> TypedExtensionConfig:
    attributes = {
        "service.name": reporter.service,
        "service.instance.id": reporter.instance,
        "service.version": reporter.version,
    }
    detector = StaticConfigResourceDetectorConfig(
        attributes={name: value for name, value in attributes.items() if value}
    )
    return _extension("envoy.tracers.opentelemetry.resource_detectors.static_config", detector)


def _by_parent(roots: float) -> TypedExtensionConfig:
    """The sampler that goes by the `traceparent`; without one it keeps so many percent of what was drawn."""
    ratio = TraceIdRatioBasedSamplerConfig(sampling_percentage=_fraction(roots))
    wrapped = _extension("envoy.tracers.opentelemetry.samplers.trace_id_ratio_based", ratio)
    by_parent = ParentBasedSamplerConfig(wrapped_sampler=wrapped)
    return _extension("envoy.tracers.opentelemetry.samplers.parent_based", by_parent)


def _extension(name: str, config: Message) -> TypedExtensionConfig:
    result = TypedExtensionConfig(name=name)
    result.typed_config.Pack(config)
    return result


def _fraction(percent: float) -> FractionalPercent:
    """Envoy draws a number below 10,000, whatever the denominator: any finer one would keep too many."""
    return FractionalPercent(numerator=round(percent * 100), denominator=FractionalPercent.TEN_THOUSAND)
