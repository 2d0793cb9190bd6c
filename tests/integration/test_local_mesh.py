"""A local mesh from Python, as the demo and tests use it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from weft.aio.poll import until
from weft.errors import Conflict, InvalidResource, Unavailable
from weft.local.mesh import LocalMesh
from weft.local.ports import free_ports
from weft.model.agent import Status
from weft.model.local_state import ChildState, MeshPorts
from weft.sdk.mesh import Mesh

AGENT = """
from weft import Agent
agent = Agent("echo")
@agent.handles("echo")
async def echo(text: str) -> str:
    return text
agent.run()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="wl-", dir="/tmp"))
    yield directory / "mesh"
    deadline = time.monotonic() + 60
    while left := [each for each in psutil.process_iter() if _mentions(each, str(directory))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    shutil.rmtree(directory)


def _mentions(process: psutil.Process, text: str) -> bool:
    try:
        return any(text in word for word in process.cmdline())
    except psutil.Error:
        return False


def _manifest(replicas: int = 1, *, text: str = AGENT) -> str:
    run = {"command": [sys.executable, "-c", text], "replicas": replicas}
    spec = {"health": {"interval": "1s"}, "drainTimeout": "3s", "run": run}
    return json.dumps(
        {"apiVersion": "weft.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "echo"}, "spec": spec}
    )


@asynccontextmanager
async def _mesh(home: Path, manifest: str = "", ports: MeshPorts | None = None) -> AsyncIterator[LocalMesh]:
    async with asyncio.timeout(200), LocalMesh(home, ports=ports or free_ports(), manifest=manifest) as mesh:
        yield mesh


async def test_a_mesh_is_used_through_its_door_and_api_and_ends_with_its_context(home: Path) -> None:
    heard: list[ChildState] = []
    lines: list[tuple[str, str]] = []
    mesh = LocalMesh(
        home,
        ports=free_ports(),
        manifest=_manifest(2),
        on_child=heard.append,
        on_line=lambda name, line: lines.append((name, line)),
    )
    async with asyncio.timeout(200), mesh:
        await mesh.wait_healthy()
        assert set(mesh.children) == {"nats", "control", "door", "echo-1", "echo-2"}
        pids = [each.pid for each in mesh.children.values() if each.pid is not None]
        assert all(psutil.pid_exists(pid) for pid in pids)
        async with Mesh(proxy=mesh.proxy_url) as client:
            assert await client.request("echo", "echo", text="hello") == "hello"
            assert {each.id for each in await client.discover("echo")} == {"echo-1", "echo-2"}
        assert [each["metadata"]["name"] for each in await mesh.api.resources("agents")] == ["echo"]
    assert len(pids) == 5
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert [each.phase for each in heard if each.name == "echo-1"][:2] == ["starting", "ready"]
    assert {each.phase for each in heard[-2:]} == {"stopping", "stopped"}
    assert any(name == "echo-1" for name, _ in lines)
    assert not (home / "state.json").exists()


async def test_a_mesh_that_is_healthy_can_be_called_from_everywhere_at_once(home: Path) -> None:
    async with _mesh(home, _manifest(2)) as mesh:
        await mesh.wait_healthy()
        assert (await mesh.api.ask("GET", "/v1/sidecars"))["settled"] is True
        proxies = [mesh.proxy_url, *(_proxy(mesh, each) for each in ("echo-1", "echo-2"))]
        for proxy in proxies:
            async with Mesh(proxy=proxy) as client:
                assert await client.request("echo", "echo", text="first") == "first"


def _proxy(mesh: LocalMesh, name: str) -> str:
    sidecar = psutil.Process(mesh.children[name].pid)
    environs = [each.environ() for each in sidecar.children(recursive=True)]
    [proxy] = {each["WEFT_PROXY"] for each in environs if "WEFT_PROXY" in each}
    return proxy


async def test_replicas_are_replaced_without_a_moment_in_which_none_is_healthy(home: Path) -> None:
    async with _mesh(home, _manifest()) as mesh:
        await mesh.wait_healthy()
        async with Mesh(proxy=mesh.proxy_url) as client:
            await mesh.api.apply(_manifest(text=AGENT + "# changed"), "again.yaml")
            seen: set[str] = set()

            async def replaced() -> bool:
                assert await client.request("echo", "echo", text="still here") == "still here"
                present = {each.id for each in await client.discover("echo", status=None)}
                seen.update(present)
                return present == {"echo-2"}

            await until(replaced, longest=0.05)
            await mesh.wait_healthy()
    assert seen == {"echo-1", "echo-2"}


async def test_a_wrong_manifest_is_told_before_anything_starts(home: Path) -> None:
    heard: list[ChildState] = []
    with pytest.raises(InvalidResource, match="replicas"):
        async with LocalMesh(home, ports=free_ports(), manifest=_manifest(-1), on_child=heard.append):
            pass
    assert heard == []


async def test_a_port_in_use_leaves_the_home_to_the_next(home: Path) -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    async with server:
        taken = free_ports().model_copy(update={"xds": server.sockets[0].getsockname()[1]})
        with pytest.raises(Unavailable, match="meant for xDS, is in use"):
            async with _mesh(home, ports=taken):
                pass
    async with _mesh(home) as mesh:
        with pytest.raises(Conflict, match="running already"):
            async with _mesh(home):
                pass
        await mesh.wait_healthy()


async def test_a_mesh_that_is_given_up_while_it_starts_leaves_nothing(home: Path) -> None:
    started = asyncio.Event()
    mesh = LocalMesh(home, ports=free_ports(), on_child=lambda state: _set_when_control(state, started))
    entering = asyncio.create_task(mesh.__aenter__())
    async with asyncio.timeout(60):
        await started.wait()
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
    assert {each.phase for each in mesh.children.values()} == {"stopped"}


def _set_when_control(state: ChildState, started: asyncio.Event) -> None:
    if state.name == "control":
        started.set()


async def test_an_agent_that_is_not_healthy_in_time_is_named_with_the_reason(home: Path) -> None:
    silent = "import time; time.sleep(600)"
    async with _mesh(home, _manifest(text=silent)) as mesh:
        said = ""
        for limit in (3, 20, 60):  # on a busy machine its sidecar has not begun yet
            with pytest.raises(Unavailable, match=f"not healthy after {limit} s: echo-1 is ") as raised:
                await mesh.wait_healthy(timeout=limit)
            said = raised.value.detail
            if re.search(r"echo-1 is starting \(.+\)", said):
                break
        assert re.search(r"echo-1 is starting \(.+\)", said)
        async with Mesh(proxy=mesh.proxy_url) as client:
            [instance] = await client.discover("echo", status=None)
            assert instance.status is Status.STARTING


async def test_the_home_holds_the_state_and_a_log_of_each_process(home: Path) -> None:
    async with _mesh(home) as mesh:
        await mesh.wait_healthy()
        state = json.loads((home / "state.json").read_text())
        assert state["pid"] == os.getpid()
        assert {each["name"] for each in state["children"]} == {"nats", "control", "door"}
    assert {"nats.log", "control.log"} <= {each.name for each in (home / "logs").iterdir()}
