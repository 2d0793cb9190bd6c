"""The control plane's push to a thousand simulated sidecars, as `benchmarks.xds_push` measures it."""

from __future__ import annotations

from benchmarks import xds_push
from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result

BUDGET = 1000.0
"""Milliseconds to the last sidecar, 99th percentile."""

_FEW = (100, 1000, 10)


async def measure(*, quick: bool = False) -> Result:
    """Change endpoints under many sidecars, beside a tenth of the sidecars and endpoints."""
    few_streams, few_endpoints, few_clusters = _FEW
    step(f"push: {few_streams} sidecars, {few_endpoints:,} endpoints")
    few = await xds_push.measure(few_streams, few_endpoints, few_clusters, changes=5 if quick else 30)
    step("push: 1,000 sidecars, 10,000 endpoints")
    many = await xds_push.measure(changes=3 if quick else 30)
    against = f"{few.streams} sidecars"
    figures = (
        Figure("change to the last sidecar, p50", many.p50 * 1000, "ms", few.p50 * 1000, against),
        Figure(
            "change to the last sidecar, p99",
            many.p99 * 1000,
            "ms",
            few.p99 * 1000,
            against,
            Budget(BUDGET),
        ),
        Figure("server CPU of a change", many.server_cpu * 1000, "ms", few.server_cpu * 1000, against),
        Figure("all connect at once", many.connect_seconds, "s", few.connect_seconds, against),
    )
    notes = (
        f"{many.streams:,} gRPC clients that acknowledge as Envoy does, {many.endpoints:,} endpoints in "
        f"{many.clusters} clusters; a change replaces the endpoints of one; {many.changes} changes",
        f"baseline: {few.streams} sidecars, {few.endpoints:,} endpoints in {few.clusters} clusters",
    )
    return Result("xDS push", figures, notes)
