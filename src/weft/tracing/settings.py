"""What the environment says of tracing, in OpenTelemetry's variables and Weft's own.

| variable | what |
|---|---|
| `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or `OTEL_EXPORTER_OTLP_ENDPOINT` and `/v1/traces` | where spans go |
| `OTEL_EXPORTER_OTLP_TRACES_HEADERS`, `OTEL_EXPORTER_OTLP_HEADERS` | to be sent along: `name=value,...` |
| `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`, `OTEL_EXPORTER_OTLP_PROTOCOL` | only `http/protobuf` is spoken |
| `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | whose spans they are |
| `OTEL_SDK_DISABLED=true`, `OTEL_TRACES_EXPORTER=none` | there are none |
| `WEFT_TRACE_SAMPLING` | percent of the traces that begin here which are recorded |
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from weft.tracing.sampling import sampling_of
from weft.tracing.span import Value

logger = logging.getLogger(__name__)

TRACES_PATH: Final = "/v1/traces"
SERVICE_NAME: Final = "service.name"

_HTTP_PROTOBUF = "http/protobuf"


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """How a process is to trace."""

    enabled: bool = True
    endpoint: str | None = None
    """URL that takes OTLP by HTTP; None: the mesh's own, if the process is in one."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """To be sent there."""
    resource: Mapping[str, Value] = field(default_factory=dict)
    """Attributes of whose spans they are."""
    sampling: float | None = None
    """Percent; None: nobody has said, so others decide."""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> TracingSettings:
        """What `environ` says. What makes no sense is told in the log, and left out."""
        return cls(
            enabled=_enabled(environ),
            endpoint=_endpoint(environ),
            headers=_pairs(_either(environ, "HEADERS")),
            resource=_resource(environ),
            sampling=sampling_of(environ),
        )


def _enabled(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() != "none"


def _either(environ: Mapping[str, str], name: str) -> str:
    found = environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")
    return found.strip()


def _endpoint(environ: Mapping[str, str]) -> str | None:
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    general = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    if not endpoint and general:
        endpoint = general.rstrip("/") + TRACES_PATH
    if not endpoint:
        return None
    protocol = _either(environ, "PROTOCOL") or _HTTP_PROTOBUF
    if protocol != _HTTP_PROTOBUF:
        logger.warning("spans go to %s by %s: nothing else is spoken", endpoint, _HTTP_PROTOBUF)
    if not _is_url(endpoint):
        logger.error("OTEL_EXPORTER_OTLP_ENDPOINT is no URL, so it gets no spans: %s", endpoint)
        return None
    return endpoint


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _resource(environ: Mapping[str, str]) -> dict[str, Value]:
    found: dict[str, Value] = dict(_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", "")))
    if name := environ.get("OTEL_SERVICE_NAME", "").strip():
        found[SERVICE_NAME] = name
    return found


def _pairs(text: str) -> dict[str, str]:
    found = {}
    for each in text.split(","):
        name, separator, value = each.partition("=")
        if separator and name.strip():
            found[unquote(name.strip())] = unquote(value.strip())
    return found
