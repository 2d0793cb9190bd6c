"""How observing goes, over HTTP: what is kept, what got lost, what is sent on."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Context, CurrentTelemetry
from weft.model.operator import Scope
from weft.model.telemetry import TelemetrySpec

router = APIRouter(prefix="/v1/telemetry", tags=["traces"], dependencies=[Depends(requires(Scope.VIEWER))])


class SpanFigures(Body):
    """Spans, at the replica that answers. Totals are since it began."""

    received: int
    kept: int
    """Now."""
    traces: int
    """That these are of."""
    dropped: int
    """That got lost: of traces that are too long, or on the way to other replicas."""
    bytes: int
    """What the kept ones take up."""
    oldest: float | None
    """When the oldest trace began, in seconds since 1970."""


class ForwardFigures(Body):
    """What this replica sends on to a collector."""

    endpoint: str
    """Empty: there is none."""
    sent: int
    """Spans."""
    failed: int
    """Spans that were not taken."""


class SamplingOf(Body):
    """What a Telemetry says of sampling."""

    telemetry: str
    """Its name."""
    destination: str
    """Empty: it is the mesh's default."""
    percent: float


class TelemetryFigures(Body):
    """How observing goes."""

    spans: SpanFigures
    forward: ForwardFigures
    sampling: list[SamplingOf]
    """What is declared. Where nothing is, sidecars have a setting of their own."""


@router.get("")
async def show_telemetry(context: Context, telemetry: CurrentTelemetry) -> TelemetryFigures:
    """How observing goes at this replica."""
    spans = telemetry.spans
    kept, metrics = spans.traces.kept, spans.metrics
    return TelemetryFigures(
        spans=SpanFigures(
            received=metrics.received,
            kept=kept.spans,
            traces=kept.traces,
            dropped=metrics.dropped,
            bytes=kept.bytes,
            oldest=kept.oldest,
        ),
        forward=ForwardFigures(endpoint=spans.forwards_to, sent=metrics.sent, failed=metrics.not_sent),
        sampling=[
            SamplingOf(telemetry=each.metadata.name, destination=_destination(each.spec), percent=percent)
            for each in context.declared.resources.values()
            if isinstance(each.spec, TelemetrySpec)
            and (percent := each.spec.tracing.sampling_percent) is not None
        ],
    )


def _destination(spec: TelemetrySpec) -> str:
    if spec.target is None:
        return ""
    return spec.target.type or spec.target.capability or ""
