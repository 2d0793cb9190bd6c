"""What `weft up` makes of a declared agent: the sidecars of its replicas. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from weft.errors import InvalidRequest
from weft.model.agent_spec import AgentSpec, HealthCheck
from weft.model.node import Address
from weft.model.offer import DESCRIPTION_VARIABLE, VERSION_VARIABLE
from weft.model.resource import Resource

_STOP_TIMEOUT = 10.0
_SLACK = 5.0
"""Seconds that a sidecar takes to stop beside the drain and its program's end."""


@dataclass(frozen=True, slots=True)
class AgentRun:
    """A declared agent, as it is run on this machine."""

    type: str
    replicas: int
    surge: bool
    """Whether one more may run while replicas are replaced; not where they need the same port."""
    arguments: tuple[str, ...]
    """Of the sidecar, but for what the mesh and the replica add."""
    command: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    """What is attested of its replicas."""
    working_directory: str
    """Relative to that of the mesh."""
    stop_grace: float
    """Seconds in which a replica stops in its own way."""
    url: str = ""
    """Where callers from outside the mesh reach it; only of gateways."""
    door: Address | None = None
    """Where its replicas listen for them, together."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What the program is told of its resource, by environment variables, for those who ask it."""

    def same_program(self, other: AgentRun) -> bool:
        """Whether a replica of the other one can go on as one of this."""
        return replace(self, replicas=other.replicas, about=other.about) == other


def agent_run(document: Mapping[str, Any]) -> AgentRun | None:
    """What to run of an Agent resource (its JSON); None if it is not run here.

    Raises InvalidRequest if `document` is no Agent.
    """
    try:
        resource = Resource[AgentSpec].model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(f"not an Agent: {error}") from error
    spec, run = resource.spec, resource.spec.run
    if run is None:
        return None
    return AgentRun(
        type=resource.metadata.name,
        replicas=run.replicas,
        surge=spec.port is None,
        arguments=tuple(_arguments(resource.metadata.name, spec)),
        command=run.command,
        environment=run.environment,
        labels=spec.labels,
        working_directory=run.working_directory or ".",
        stop_grace=spec.drain_timeout + _STOP_TIMEOUT + _SLACK,
        about=_about(spec),
    )


def _about(spec: AgentSpec) -> Mapping[str, str]:
    said = {DESCRIPTION_VARIABLE: spec.description, VERSION_VARIABLE: spec.version}
    return {name: value for name, value in said.items() if value}


def _arguments(agent_type: str, spec: AgentSpec) -> Iterator[str]:
    yield f"--type={agent_type}"
    yield from (f"--capability={each}" for each in spec.capabilities)
    yield from (f"--label={name}={value}" for name, value in sorted(spec.labels.items()))
    yield f"--version={spec.version}"
    yield f"--weight={spec.weight}"
    yield f"--protocol={spec.protocol.value}"
    yield f"--mcp-path={spec.mcp_path}"
    yield f"--region={spec.locality.region}"
    yield f"--zone={spec.locality.zone}"
    if spec.port is not None:
        yield f"--port={spec.port}"
    yield from _work_arguments(spec)
    yield from _health_arguments(spec.health)
    yield f"--drain-timeout={spec.drain_timeout}"
    yield f"--stop-timeout={_STOP_TIMEOUT}"


def _work_arguments(spec: AgentSpec) -> Iterator[str]:
    for task in spec.tasks:
        yield f"--consume={task.queue}" + ("" if task.concurrency is None else f"={task.concurrency}")
    for event in spec.events:
        yield f"--subscribe{'-each' if event.every_instance else ''}={event.topic}"
    yield f"--event-format={spec.event_format.value}"


def _health_arguments(health: HealthCheck) -> Iterator[str]:
    if health.path is not None:
        yield f"--health-path={health.path}"
    yield f"--health-interval={health.interval}"
    yield f"--health-timeout={health.timeout}"
    yield f"--healthy-threshold={health.healthy_threshold}"
    yield f"--unhealthy-threshold={health.unhealthy_threshold}"
