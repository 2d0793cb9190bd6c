"""The spans of a sidecar's own work, sent to the control plane with its own certificate.

Nothing is loaded for them, and nothing is sent, before the first task or event of a sampled trace.
"""

from __future__ import annotations

import asyncio

from weft.errors import Denied, InvalidRequest, Unauthenticated
from weft.sidecar.identity import SidecarIdentity
from weft.sidecar.settings import SidecarSettings
from weft.tracing.outlet import Send, SpansRefused
from weft.tracing.settings import TracingSettings
from weft.tracing.tracer import Tracer
from weft.work.spans import told_of

TIMEOUT = 10.0
"""Seconds that the control plane has to take spans."""


def tracer_of(settings: SidecarSettings, identity: SidecarIdentity) -> Tracer:
    """What records the spans of the sidecar of `settings`, as those of its agent."""
    resource = {
        "service.name": settings.type or settings.id,
        "service.instance.id": settings.id,
        "service.namespace": identity.trust_domain,
    }
    if settings.version:
        resource["service.version"] = settings.version
    return Tracer(
        TracingSettings(resource=resource, sampling=settings.trace_sampling),
        _to_control_plane(identity),
        told_of,
    )


def _to_control_plane(identity: SidecarIdentity) -> Send:
    async def send(request: bytes) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await identity.send_spans(request)
        except (InvalidRequest, Denied, Unauthenticated) as error:
            raise SpansRefused(error.detail) from error

    return send
