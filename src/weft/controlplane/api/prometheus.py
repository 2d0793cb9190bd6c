"""What Prometheus asks: where in the mesh there are metrics.

The answer has the form of its HTTP service discovery (`http_sd_configs`).
"""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from weft.controlplane.api.access import requires
from weft.controlplane.api.context import Context
from weft.controlplane.scrape_targets import AGENT_METRICS_PATH, ScrapeTarget, TargetRole, scrape_targets
from weft.model.operator import Scope

router = APIRouter(prefix="/v1/prometheus", tags=["metrics"], dependencies=[Depends(requires(Scope.VIEWER))])


class TargetGroup(BaseModel):
    """Targets that have the same labels; here one."""

    targets: list[str]
    labels: dict[str, str]
    """`role` (control, sidecar, agent) and `instance`; of agents also `type` and `agent_version`."""


@router.get("/sd")
async def discovery(context: Context) -> list[TargetGroup]:
    """All that has metrics, as Prometheus's HTTP service discovery takes it: replicas, sidecars, agents."""
    replicas = [] if context.replicas is None else await context.replicas.list()
    found = scrape_targets(replicas, await context.sidecars.list(), context.instances.instances)
    return [_group(each) for each in found]


def _group(target: ScrapeTarget) -> TargetGroup:
    labels = {"role": target.role.value, "instance": target.instance, **target.labels}
    if target.role is TargetRole.AGENT:
        labels["__metrics_path__"] = AGENT_METRICS_PATH
    return TargetGroup(targets=[str(target.address)], labels=labels)
