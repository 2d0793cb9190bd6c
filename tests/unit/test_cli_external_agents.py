"""What `weft agents`, `weft describe` and `weft check` say of agents without a sidecar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.control_api import ServedApi, served_api

from weft.aio.poll import until
from weft.cli.exit_codes import ExitCode
from weft.cli.external_agents import external_findings
from weft.cli.findings import Level
from weft.cli.main import run
from weft.cli.options import ControlPlane
from weft.model.agent import Instance, Status
from weft.registry.registry import Registry

CRM = """
apiVersion: weft.dev/v1alpha1
kind: ExternalAgent
metadata: {name: crm}
spec: {endpoints: ["10.0.0.7:80", "crm.example:80"], capabilities: [customers], version: "2"}
---
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: patient}
spec: {target: {capability: customers}, timeout: 5m}
"""


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServedApi]:
    async with served_api(tmp_path) as served:
        for name, value in (await served.environ()).items():
            monkeypatch.setenv(name, value)
        yield served


async def weft(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints."""
    code = await asyncio.to_thread(run, arguments)
    printed = capsys.readouterr()
    assert code == ExitCode.OK, printed.err
    return printed.out


async def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(await weft(capsys, "agents", *arguments, "--output", "json"))
    return found


async def run_beside(api: ServedApi, agent_type: str, *capabilities: str) -> None:
    """Have an agent with a sidecar, of which the API has heard."""
    registry = await Registry.open(api.store)
    running = Instance(
        "a-1", agent_type, "127.0.0.1:1", Status.HEALTHY, frozenset(capabilities), incarnation="x"
    )
    await registry.register(running)


async def test_their_addresses_stand_among_those_who_run(
    api: ServedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await listed(capsys) == []
    await api.declare(CRM)
    found = await listed(capsys)
    assert [(each["type"], each["endpoint"], each["status"], each["version"]) for each in found] == [
        ("crm", "10.0.0.7:80", "external", "2"),
        ("crm", "crm.example:80", "external", "2"),
    ]
    assert [each["reason"] for each in found] == ["", ""]
    assert len(await listed(capsys, "--limit", "1")) == 1
    for arguments in (("crm",), ("--capability", "customers"), ("--version", "2")):
        assert len(await listed(capsys, *arguments)) == 2
    for arguments in (("erp",), ("--capability", "x"), ("--status", "healthy"), ("--label", "a=b")):
        assert await listed(capsys, *arguments) == []
    table = await weft(capsys, "agents")
    assert "crm.example:80" in table
    assert "10.0.0.7:80 and 1 more; customers; version 2; in plain text" in await weft(
        capsys, "get", "externalagents"
    )


async def test_who_is_in_the_way_of_them_is_told(api: ServedApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert await external_findings(ControlPlane()) == []
    await api.declare(CRM)
    [fine] = await external_findings(ControlPlane())
    assert (fine.level, fine.found) == (Level.OK, "1, all in force")
    declared = json.loads(await weft(capsys, "describe", "externalagent", "crm", "--output", "json"))
    assert (declared["trafficPolicies"], declared["instances"]) == (["patient"], [])
    assert "remark" not in declared
    await run_beside(api, "erp", "customers")

    async def told() -> bool:
        [found] = await external_findings(ControlPlane())
        return found.level is Level.WARN and "'erp' offer 'customers'" in found.found

    async with asyncio.timeout(60):
        await until(told)
    described = await weft(capsys, "describe", "externalagent", "crm")
    assert "agents of type 'erp' offer 'customers', too" in described


async def test_a_type_with_sidecars_gets_the_calls_of_one_without(
    api: ServedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    await api.declare(CRM)
    await run_beside(api, "crm")

    async def told() -> bool:
        found = [each for each in await listed(capsys, "crm") if each["status"] == "external"]
        assert len(found) == 2
        return all("they get its calls, and it gets none" in each["reason"] for each in found)

    async with asyncio.timeout(60):
        await until(told)
    described = await weft(capsys, "describe", "externalagent", "crm")
    assert "Instances with sidecars" in described
    assert "a-1" in described
