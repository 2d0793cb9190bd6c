"""The control plane away when a sidecar is to join the mesh."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
from tests.e2e.crew import answers
from tests.e2e.leftovers import scope
from tests.e2e.meshes import PROGRAMS, eventually
from tests.integration.sidecar_process import LIMIT
from tests.processes import core


async def test_a_sidecar_joins_once_the_control_plane_is_back_and_its_token_is_worth_nothing_then(
    tmp_path: Path,
) -> None:
    with scope() as inside:
        with core(tmp_path, inside.environ, lease_ttl=3.0) as mesh, ExitStack() as ends:
            await mesh.start()
            command = (sys.executable, str(PROGRAMS / "foreign_agent.py"), str(tmp_path))
            options = ("--type=worker", "--health-interval=0.2", "--drain-grace=0")
            worker = mesh.sidecar("w-1", *options, command=command)
            token = mesh.join_token("worker", "w-1")
            worker.admit(token)
            mesh.control.kill()

            ends.callback(worker.stop)
            worker.start()

            async def waits() -> bool:
                return "obtaining an identity" in worker.log

            await eventually(waits, lambda: worker.log)
            mesh.control.start()
            await mesh.serving(mesh.control)
            proxy = httpx.AsyncClient(proxy=mesh.proxy_url, trust_env=False, timeout=LIMIT, verify=False)
            async with proxy as client:
                await answers(client, "http://worker.mesh/", "w-1")

            worker.stop()
            worker.admit(token)
            worker.start()

            async def refused() -> bool:
                return not worker.running

            await eventually(refused, lambda: worker.log)
            assert "used before" in worker.log
            assert token["WEFT_JOIN_TOKEN"] not in worker.log
            inside.note_ports()
        await inside.check_empty()
