"""What `weft up` makes of a declared agent: exactly the settings its sidecar understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from weft.errors import InvalidRequest
from weft.local.agent_run import AgentRun, agent_run
from weft.local.commands import door_command, sidecar_command
from weft.model.agent import Locality
from weft.model.local_state import MeshPorts
from weft.model.node import AgentProtocol, parse_address
from weft.sidecar.arguments import parse_arguments

PORTS = MeshPorts(api=7400, xds=7401, nats=7402, proxy=7403, dashboard=7404, metrics=7405)
HOME = Path("/home/mesh")
ADMISSION = {"WEFT_JOIN_TOKEN": "weft_join_x"}
"""What a sidecar gets beside its arguments at every start."""


def _agent(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "summarizer"},
        "spec": {"run": {"command": ["python", "agent.py"]}, **spec},
    }


def _run(**spec: Any) -> AgentRun:
    run = agent_run(_agent(**spec))
    assert run is not None
    return run


def test_what_an_agent_speaks_decides_about_its_health_unless_something_is_declared() -> None:
    for spec, path in (({}, None), ({"health": {"path": "/up"}}, "/up")):
        run = _run(protocol="mcp", mcpPath="/tools", **spec)
        command = sidecar_command(PORTS, HOME, ["--id", "summarizer-1", *run.arguments], run.command)
        settings = parse_arguments(command[3:], ADMISSION)
        assert (settings.protocol, settings.mcp_path) == (AgentProtocol.MCP, "/tools")
        assert settings.health.path == path


def test_the_sidecar_is_told_all_that_is_declared() -> None:
    run = _run(
        capabilities=["summarize", "translate"],
        version="2",
        labels={"team": "research", "note": "a=b c"},
        protocol="h2c",
        port=9000,
        weight=7,
        locality={"region": "eu", "zone": "a"},
        drainTimeout="5s",
        health={
            "path": "",
            "interval": "1s",
            "timeout": "500ms",
            "healthyThreshold": 2,
            "unhealthyThreshold": 4,
        },
        run={"command": ["python", "agent.py", "--type=x", "--", "y"]},
    )
    command = sidecar_command(PORTS, HOME, ["--id", "summarizer-1", *run.arguments], run.command)
    settings = parse_arguments(command[3:], ADMISSION)
    assert (settings.type, settings.id) == ("summarizer", "summarizer-1")
    assert settings.capabilities == {"summarize", "translate"}
    assert (settings.version, settings.weight, settings.agent_port) == ("2", 7, 9000)
    assert settings.labels == {"team": "research", "note": "a=b c"}
    assert settings.protocol is AgentProtocol.H2C
    assert settings.locality == Locality("eu", "a")
    assert settings.drain_timeout == 5.0
    health = settings.health
    assert (health.path, health.interval, health.timeout) == ("", 1.0, 0.5)
    assert (health.healthy_threshold, health.unhealthy_threshold) == (2, 4)
    assert settings.command == ("python", "agent.py", "--type=x", "--", "y")
    assert settings.nats_servers == ("tls://127.0.0.1:7402",)
    assert settings.xds_addresses == (parse_address("127.0.0.1:7401"),)
    assert settings.api_addresses == (parse_address("127.0.0.1:7400"),)
    assert settings.trust_bundle == HOME / "bundle.pem"
    assert run.labels == settings.labels


def test_what_is_not_declared_is_left_to_the_defaults() -> None:
    run = _run()
    settings = parse_arguments(sidecar_command(PORTS, HOME, run.arguments, run.command)[3:], ADMISSION)
    assert settings.agent_port is None
    assert (settings.version, settings.labels, settings.weight) == ("", {}, 1)
    assert (run.replicas, run.working_directory, run.surge) == (1, ".", True)


def test_the_door_is_a_sidecar_that_only_calls() -> None:
    settings = parse_arguments(door_command(PORTS, HOME)[3:], ADMISSION)
    assert settings.type is None
    assert settings.outbound_port == 7403


def test_an_agent_that_runs_elsewhere_is_not_run_here() -> None:
    assert agent_run(_agent(run=None)) is None


def test_only_the_number_of_replicas_may_change_without_a_restart() -> None:
    one = _run()
    assert one.same_program(_run(run={"command": ["python", "agent.py"], "replicas": 3}))
    described = _run(description="what it does")
    assert described.about == {"WEFT_AGENT_DESCRIPTION": "what it does"}
    assert one.same_program(described)
    assert not one.same_program(_run(run={"command": ["python", "other.py"]}))
    assert not one.same_program(_run(run={"command": ["python", "agent.py"], "environment": {"A": "1"}}))
    assert not one.same_program(_run(version="2"))


def test_replicas_that_need_one_port_are_replaced_one_after_the_other() -> None:
    assert not _run(port=9000).surge


def test_a_replica_has_time_to_drain_before_it_is_killed() -> None:
    assert _run(drainTimeout="2m").stop_grace > 120


def test_what_is_no_agent_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        agent_run({"kind": "Agent"})
