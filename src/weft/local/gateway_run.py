"""What `weft up` makes of a declared Gateway: sidecars with the gateway's process beside. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from weft.errors import InvalidRequest
from weft.local.agent_run import AgentRun
from weft.model.gateway import GatewaySpec
from weft.model.node import Address
from weft.model.resource import Resource

GATEWAY_COMMAND = (sys.executable, "-m", "weft.gateway")
"""The gateway's process."""

DRAIN_TIMEOUT = 30.0
"""Seconds that a stopping gateway has to finish what is in flight."""

_STOP_TIMEOUT = 15.0
_SLACK = 5.0


def gateway_run(document: Mapping[str, Any]) -> AgentRun:
    """What to run of a Gateway resource (its JSON). Raises InvalidRequest if `document` is none."""
    try:
        resource = Resource[GatewaySpec].model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(f"not a Gateway: {error}") from error
    name, spec = resource.metadata.name, resource.spec
    return AgentRun(
        type=name,
        replicas=spec.replicas,
        surge=True,
        arguments=gateway_arguments(name, spec.host, spec.port),
        command=GATEWAY_COMMAND,
        environment={},
        labels={},
        working_directory=".",
        stop_grace=DRAIN_TIMEOUT + _STOP_TIMEOUT + _SLACK,
        url=spec.url,
        door=Address(spec.host, spec.port),
    )


def gateway_arguments(name: str, host: str, port: int) -> tuple[str, ...]:
    """The arguments of the sidecar of an instance of gateway `name`."""
    return (
        f"--type={name}",
        f"--outside={Address(host, port)}",
        "--health-path=/ready",
        "--health-interval=2",
        f"--drain-timeout={DRAIN_TIMEOUT}",
        f"--stop-timeout={_STOP_TIMEOUT}",
    )
