"""Certificates that end within seconds: renewed, and their authorities replaced, without a failed call."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio
from tests.e2e.load import Journal, check, load
from tests.e2e.meshes import eventually
from tests.e2e.secured import SecuredMesh, secured_mesh
from tests.freezing import freeze

from weft import NoHealthyAgent

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

LIFETIME = 16.0
"""Seconds for which an SVID is valid."""

ENVIRON = {
    "WEFT_CONTROL_SVID_LIFETIME": str(LIFETIME),
    "WEFT_CONTROL_TRUST_PROPAGATION": "2",
    "WEFT_TRUST_REFRESH": "0.5",
}

AGENTS = ("editor", "vault", "worker")

LEVELS = ("intermediate", "root") * 5
"""What is replaced, one after the other."""


def agent(agent_type: str, *command: object) -> str:
    words = ", ".join(map(str, (sys.executable, *command)))
    return f"""
apiVersion: weft.dev/v1alpha1
kind: Agent
metadata: {{name: {agent_type}}}
spec:
  health: {{interval: 500ms}}
  drainTimeout: 2s
  run: {{command: [{words}]}}
"""


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return Journal(tmp_path_factory.mktemp("journal") / "executions")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(journal: Journal) -> AsyncIterator[SecuredMesh]:
    agents = [
        agent("worker", "worker.py", journal.path),
        agent("editor", "witness.py", "editor"),
        agent("vault", "witness.py", "vault"),
    ]
    async with secured_mesh("---".join(agents), environ=ENVIRON) as mesh:
        yield mesh


@contextmanager
def without_control_plane(mesh: SecuredMesh) -> Iterator[None]:
    """Within the context the control plane does not answer anybody."""
    control = mesh.process("control")
    freeze(control.pid)
    try:
        yield
    finally:
        control.send_signal(signal.SIGCONT)


async def ends(mesh: SecuredMesh, *agents: str) -> list[float]:
    """When the identities of these agents' sidecars end, in seconds since 1970; the first one first."""
    known = {each["spiffeId"].rpartition("/")[2]: each["expiresAt"] for each in await mesh.api.identities()}
    return sorted(float(known[f"{each}-1"]) for each in agents)


async def fresh(mesh: SecuredMesh, *agents: str, part: float = 0.7) -> float:
    """Wait until these agents have `part` of their certificates' lives before them; when the first ends.

    And until all of them serve: a test before may have left the control plane away for longer than some
    certificate lived, upon which a sidecar is started anew.
    """

    async def all_fresh() -> bool:
        long = (await ends(mesh, *agents))[0] - time.time() > LIFETIME * part
        return long and all(mesh.local.children[f"{each}-1"].phase == "ready" for each in agents)

    await eventually(all_fresh, lambda: f"not all were fresh at the same time\n{_told(mesh)}", limit=60.0)
    return (await ends(mesh, *agents))[0]


async def knows(mesh: SecuredMesh, caller: str, callee: str) -> None:
    """Wait until the Envoy of one agent would call another where that one is."""

    async def so() -> bool:
        where = str(await mesh.inbound(callee))
        return where in await _endpoints(mesh, caller, callee)

    await eventually(so, lambda: _told(mesh))


async def _endpoints(mesh: SecuredMesh, caller: str, callee: str) -> set[str]:
    """Where the Envoy of one agent would call another."""
    dumped = json.loads(await mesh.config_dump(f"{caller}-1"))["configs"]
    known = [each["endpoint_config"] for dump in dumped for each in dump.get("dynamic_endpoint_configs", ())]
    groups = [group for each in known if each["cluster_name"] == f"type/{callee}" for group in _groups(each)]
    sockets = [
        each["endpoint"]["address"]["socket_address"] for group in groups for each in group["lb_endpoints"]
    ]
    return {f"{each['address']}:{each['port_value']}" for each in sockets}


def _groups(assignment: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in assignment.get("endpoints", ()) if "lb_endpoints" in each]


async def test_without_the_control_plane_calls_go_on_for_as_long_as_certificates_do(
    mesh: SecuredMesh, journal: Journal
) -> None:
    async with mesh.client_of("editor") as client, load(client) as calls:
        end = await fresh(mesh, "editor", "worker")
        with without_control_plane(mesh):
            # What is left is for a busy machine to renew in: beyond the end calls fail, as they should.
            await asyncio.sleep(end - LIFETIME * 3 / 8 - time.time())
            await calls.goes_on(5)

        async def renewed() -> bool:
            return (await ends(mesh, "editor", "worker"))[0] > end + 1

        await eventually(renewed, lambda: "not renewed after the control plane was back")
        await calls.goes_on()
    check(calls, journal, may_break=False)


async def test_an_identity_that_ended_meanwhile_is_the_reason_of_errors_and_made_anew(
    mesh: SecuredMesh,
) -> None:
    await fresh(mesh, *AGENTS, part=0.1)
    await knows(mesh, "editor", "vault")
    await fresh(mesh, *AGENTS, part=0.6)  # so that none is just being renewed
    end = (await ends(mesh, *AGENTS))[-1]
    before = {name: each.restarts for name, each in mesh.local.children.items()}
    with without_control_plane(mesh):
        await asyncio.sleep(end + 1 - time.time())
        # It has no connection to the vault yet, on which calls would go on for a while.
        async with mesh.client_of("editor") as client:
            with pytest.raises(NoHealthyAgent, match="expired"):
                await client.request("vault", "headers")

    async def healed() -> bool:
        children = [mesh.local.children[f"{each}-1"] for each in AGENTS]
        return all(each.phase == "ready" and each.restarts > before[each.name] for each in children)

    await eventually(healed, lambda: _told(mesh), limit=60.0)
    assert "and could not be renewed in time" in mesh.log("editor-1")
    await mesh.allows("editor", "vault")


async def test_ten_rotations_of_the_authorities_fail_no_call(mesh: SecuredMesh, journal: Journal) -> None:
    await fresh(mesh, *AGENTS, part=0.1)
    await knows(mesh, "editor", "worker")
    async with mesh.client_of("editor") as client, load(client) as calls:
        for level in LEVELS:
            await rotate(mesh, level)
            await calls.goes_on(10)
        last = time.time()

        async def all_renewed() -> bool:
            return all(each["issuedAt"] > last for each in await mesh.api.identities())

        await eventually(all_renewed, lambda: "not everybody has a certificate by the last authority")

        async def one_has_left() -> bool:
            return bool((await mesh.api.authority())["previousRoots"] < LEVELS.count("root"))

        await eventually(one_has_left, lambda: "the first root is still trusted")
        await calls.goes_on()
    check(calls, journal, may_break=False)


async def rotate(mesh: SecuredMesh, level: str) -> None:
    """Replace an authority, and wait until the new one signs."""
    before = await mesh.api.authority()
    await mesh.api.rotate(level)

    async def replaced() -> bool:
        now = await mesh.api.authority()
        return now["issuing"] != before["issuing"] and (level != "root" or now["root"] != before["root"])

    await eventually(replaced, lambda: f"no new {level}")


def _told(mesh: SecuredMesh) -> str:
    """What is known of the mesh, for whoever wants to know why."""
    logs = "\n".join(f"{name}:\n{mesh.log(name)[-4000:]}" for name in ("worker-1", "editor-1", "control"))
    return f"{mesh.local.children}\n{logs}"
