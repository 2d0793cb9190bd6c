"""Agents without a sidecar, as the commands show them that list who runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from weft.cli.api import control_api
from weft.cli.findings import Finding, Level
from weft.cli.options import ControlPlane
from weft.cli.resources import read_resource
from weft.errors import MeshError, NotFound
from weft.local.control import ControlApi
from weft.model.external_agent import ExternalAgentSpec, overshadowed
from weft.model.resource import AnyResource

KIND = "externalagents"
STATUS = "external"
"""In place of an instance's: nobody looks after their health."""


async def external_findings(where: ControlPlane) -> list[Finding]:
    """Whether they get the calls that are meant for them; nothing if there are none, or nobody to ask."""
    try:
        found = await _looked_at(where)
    except MeshError:
        return []
    hidden = [each for each in found if each.reason]
    if not hidden:
        return [Finding(Level.OK, "external agents", f"{len(found)}, all in force")] if found else []
    advice = "delete the ExternalAgent, or stop those agents: who has a sidecar counts before it"
    return [Finding(Level.WARN, f"external agent {each.name}", each.reason, advice) for each in hidden]


async def external_agents(
    where: ControlPlane, agent_type: str | None, capabilities: Sequence[str], version: str | None
) -> list[dict[str, Any]]:
    """The addresses of those that match, each in the form of an instance."""
    return [
        row
        for each in await _looked_at(where)
        if agent_type in {None, each.name}
        and version in {None, each.spec.version}
        and set(capabilities) <= set(each.spec.capabilities)
        for row in each.rows()
    ]


def in_the_way(resource: AnyResource, instances: Iterable[Mapping[str, Any]]) -> str:
    """Why an ExternalAgent does not get all its calls, if `instances` run; empty if it does."""
    offered: dict[str, str] = {}
    types = set()
    for each in instances:
        types.add(each["type"])
        offered.update(dict.fromkeys(each["capabilities"], each["type"]))
    return overshadowed(resource.metadata.name, resource.spec, types, offered) or ""


@dataclass(frozen=True, slots=True)
class _ExternalAgent:
    name: str
    spec: ExternalAgentSpec
    declared_at: float
    """Seconds since 1970."""
    reason: str
    """Why it does not get all its calls; empty if it does."""

    def rows(self) -> Iterator[dict[str, Any]]:
        for endpoint in self.spec.endpoints:
            yield {
                "id": "",
                "type": self.name,
                "endpoint": endpoint,
                "status": STATUS,
                "capabilities": sorted(self.spec.capabilities),
                "version": self.spec.version,
                "labels": {},
                "locality": {"region": "", "zone": ""},
                "weight": 1,
                "inFlight": 0,
                "startedAt": self.declared_at,
                "reason": self.reason,
            }


async def _looked_at(where: ControlPlane) -> list[_ExternalAgent]:
    async with control_api(where) as api:
        resources = [read_resource(each) for each in await _declared(api)]
        instances = await api.agents([("status", "any")]) if resources else []
    return [
        _ExternalAgent(
            each.metadata.name,
            each.spec,
            _seconds(each.metadata.creation_timestamp),
            in_the_way(each, instances),
        )
        for each in resources
    ]


async def _declared(api: ControlApi) -> list[dict[str, Any]]:
    try:
        return await api.resources(KIND)
    except NotFound:
        return []  # a control plane of an earlier version


def _seconds(timestamp: str | None) -> float:
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0
