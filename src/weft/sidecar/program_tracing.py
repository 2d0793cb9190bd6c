"""What a program's OpenTelemetry is told by its environment: whose spans it makes, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from weft.model.node import Node
from weft.tracing.sampling import SAMPLING_VARIABLE
from weft.tracing.settings import TRACES_PATH

CALLER: Final = "caller"
"""The service's name of programs that only call."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"


def traced(base: Mapping[str, str], node: Node, trust_domain: str) -> dict[str, str]:
    """The variables for a program beside `node`'s sidecar, without those that `base` has already.

    Who names an endpoint keeps to that, by whatever protocol.
    """
    inbound = node.inbound
    wanted = {
        "OTEL_SERVICE_NAME": inbound.type if inbound is not None else CALLER,
        "OTEL_PROPAGATORS": "tracecontext,baggage",
        SAMPLING_VARIABLE: f"{node.trace_sampling:g}",
    }
    if not any(base.get(each) for each in _ENDPOINTS):
        wanted |= {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{node.outbound}{TRACES_PATH}",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-weft-to=control",
        }
    found = {name: value for name, value in wanted.items() if not base.get(name)}
    about = {"service.instance.id": node.id, "service.namespace": trust_domain}
    if inbound is not None and inbound.version:
        about["service.version"] = inbound.version
    return found | {_ATTRIBUTES: _attributes(base.get(_ATTRIBUTES, ""), about)}


def _attributes(given: str, about: Mapping[str, str]) -> str:
    """`given` attributes, and those `about` the program that are not among them."""
    named = {each.partition("=")[0].strip() for each in given.split(",")}
    more = [f"{name}={quote(value, safe='')}" for name, value in about.items() if name not in named]
    return ",".join([given, *more] if given.strip() else more)
