"""An injected pod, lived through as by its kubelet: two real processes, by what stands in the pod alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from tests.cluster import ISSUER, Cluster
from tests.integration.sidecar_process import eventually
from tests.processes import Core, core
from tests.unit.kubernetes.pods import agent, environment_of, fields_of, injected, pod, sidecar

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.errors import NotFound
from weft.kubernetes.injection import InjectionSettings
from weft.kubernetes.sidecar_container import expanded

POD_IP = "127.0.0.2"
"""Another one than the loopback at which the agent listens: whoever asks there asks the sidecar."""
LIMIT = 120.0
PROGRAM = Path(__file__).with_name("pod_agent.py")


class Kubelet:
    """Starts, probes and stops the containers of one pod."""

    def __init__(self, name: str, found: dict[str, Any], log: Path) -> None:
        self.name = name
        self.pod = found
        self._log = log
        self._fields = fields_of(name, POD_IP)
        self.running: dict[str, Process] = {}

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    async def start(self, container: Mapping[str, Any]) -> None:
        command = [*container["command"], *container.get("args", [])]
        self.running[container["name"]] = await self._exec(container, command)

    async def stop(self, container: Mapping[str, Any]) -> int:
        """SIGTERM, and its exit code."""
        process = self.running[container["name"]]
        process.send_signal(signal.SIGTERM)
        return await process.wait()

    async def pre_stop(self, container: Mapping[str, Any]) -> int:
        """Run the hook; 0 if it did what it should."""
        hook = container["lifecycle"]["preStop"]
        if "exec" in hook:
            return await (await self._exec(container, hook["exec"]["command"])).wait()
        return 0 if await self.get(hook["httpGet"]) == 200 else 1

    async def probe(self, container: Mapping[str, Any], kind: str) -> bool:
        try:
            return await self.get(container[kind]["httpGet"]) == 200
        except httpx.ConnectError:
            return False

    async def get(self, action: Mapping[str, Any]) -> int:
        url = f"http://{POD_IP}:{action['port']}{action['path']}"
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT) as http:
            return (await http.get(url)).status_code

    async def _exec(self, container: Mapping[str, Any], command: list[str]) -> Process:
        environ = environment_of(container, self._fields)
        program, *rest = (expanded(each, environ) for each in command)
        with self._log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                # The image's `python` is this one.
                *(sys.executable if program == "python" else program, *rest),
                env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **environ},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    async def end(self) -> None:
        for each in self.running.values():
            if each.returncode is None:
                each.kill()
            await each.wait()


@dataclass(frozen=True)
class Place:
    """A mesh whose control plane knows a cluster."""

    core: Core
    cluster: Cluster


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("place")
    cluster = Cluster(directory)
    environ = {
        **os.environ,
        "WEFT_CONTROL_SERVICE_ACCOUNT_ISSUER": ISSUER,
        "WEFT_CONTROL_SERVICE_ACCOUNT_KEYS_FILE": str(cluster.keys),
    }
    with core(directory / "mesh", environ, lease_ttl=3.0) as running:
        with asyncio.Runner() as runner:
            runner.run(running.start())
        yield Place(running, cluster)


@contextmanager
def mounted(running: Core, token: str) -> Iterator[Path]:
    """What a kubelet mounts, below a short directory: paths of sockets are short."""
    with TemporaryDirectory(prefix="wt-", dir="/tmp") as name:
        for each in ("trust", "runtime", "identity"):
            Path(name, each).mkdir()
        Path(name, "trust", "token").write_text(token)
        bundle = running.operator_environ["WEFT_CA_FILE"]
        Path(name, "trust", "roots.pem").write_bytes(Path(bundle).read_bytes())
        yield Path(name)


def token_of(cluster: Cluster, name: str) -> str:
    """What the cluster projects into the pod of that name."""
    about: Any = {"namespace": "crew", "pod": {"name": name}, "serviceaccount": {"name": "summarizer"}}
    return cluster.token(kid="one", **{"kubernetes.io": about})


def free_ports(count: int) -> list[int]:
    """Ports at which nobody listens."""
    with ExitStack() as held:
        return [held.enter_context(reserve_port("127.0.0.1")).port for _ in range(count)]


def settings(running: Core, directory: Path, ports: list[int]) -> InjectionSettings:
    return InjectionSettings(
        api=(running.api_url,),
        xds=(running.operator_environ["WEFT_XDS"],),
        nats=(running.operator_environ["WEFT_NATS"],),
        inbound_port=ports[0],
        metrics_port=ports[1],
        outbound_port=ports[2],
        directory=str(directory),
    )


def summarizer(state: Path, port: int) -> dict[str, Any]:
    """Its pod, as its author wrote it."""
    found = pod(port=str(port), drain_timeout=f"{LIMIT:g}")
    agent(found).update(
        command=[sys.executable, str(PROGRAM), str(state)],
        ports=[{"name": "http", "containerPort": port}],
        livenessProbe={"httpGet": {"path": "/fit", "port": "http"}},
        readinessProbe={"tcpSocket": {"port": port}},
    )
    return found


async def status(running: Core, name: str) -> str:
    """Of an instance, as the control plane has it."""
    async with running.api() as api:
        try:
            return str((await api.agent("summarizer", name))["status"])
        except NotFound:
            return "gone"


@asynccontextmanager
async def started(place: Place, name: str, state: Path) -> AsyncIterator[Kubelet]:
    """A pod that is ready; at the end nothing of it is left."""
    with mounted(place.core, token_of(place.cluster, name)) as volumes:
        *ports, agent_port = free_ports(4)
        found = injected(summarizer(state, agent_port), settings(place.core, volumes, ports)).pod
        node = Kubelet(name, found, state / "pod.log")
        try:
            await _start(node)
            yield node
        finally:
            await node.end()
            runtime = volumes / "runtime"
            await eventually(
                lambda: not any(runtime.iterdir()), lambda: f"{list(runtime.iterdir())} were left"
            )


async def test_an_injected_pod_is_started_called_drained_and_stopped_in_its_order(
    place: Place, tmp_path: Path
) -> None:
    async with asyncio.timeout(4 * LIMIT), AsyncExitStack() as ends:
        node = await ends.enter_async_context(started(place, "summarizer-7d9f-x2x9p", tmp_path))
        door = await ends.enter_async_context(caller(place.core))
        await _call(door, node.name)
        held = asyncio.create_task(door.get("http://summarizer.mesh/held"))
        await eventually((tmp_path / "held").exists, lambda: node.log)
        await _drain(node, place.core, (tmp_path / "release").touch)
        assert (await held).text == node.name
        assert await node.stop(agent(node.pod)) == 0
        # The sidecar was there until after the agent, which could read its identity.
        assert (tmp_path / "farewell").read_text() == "200 True"
        assert await node.stop(sidecar(node.pod)) == 0
        assert await status(place.core, node.name) == "gone"


async def test_a_pod_that_an_operator_drains_goes_on_without_calls(place: Place, tmp_path: Path) -> None:
    async with asyncio.timeout(4 * LIMIT), AsyncExitStack() as ends:
        node = await ends.enter_async_context(started(place, "summarizer-7d9f-k4k2s", tmp_path))
        door = await ends.enter_async_context(caller(place.core))
        await _call(door, node.name)
        async with place.core.api() as api:
            await api.drain("summarizer", node.name)
        assert await status(place.core, node.name) == "draining"
        # It is over, and would not be begun anew.
        assert await node.pre_stop(sidecar(node.pod)) == 0
        assert await node.pre_stop(agent(node.pod)) == 0
        assert node.running["weft-sidecar"].returncode is None
        assert await status(place.core, node.name) == "draining"
        assert await node.stop(agent(node.pod)) == 0
        assert (tmp_path / "farewell").read_text() == "200 True"
        assert await node.stop(sidecar(node.pod)) == 0


def caller(running: Core) -> httpx.AsyncClient:
    """One that comes in by the door."""
    return httpx.AsyncClient(proxy=running.proxy_url, trust_env=False, timeout=LIMIT)


async def _start(node: Kubelet) -> None:
    await node.start(sidecar(node.pod))
    await until(lambda: node.probe(sidecar(node.pod), "startupProbe"))
    assert await node.probe(sidecar(node.pod), "livenessProbe")
    assert not await node.probe(agent(node.pod), "livenessProbe")
    await node.start(agent(node.pod))
    await until(lambda: node.probe(agent(node.pod), "readinessProbe"))
    assert await node.probe(agent(node.pod), "livenessProbe")


async def _call(door: httpx.AsyncClient, name: str) -> None:
    async def answers() -> bool:
        answer = await door.get("http://summarizer.mesh/")
        return answer.status_code == 200 and answer.text == name

    await until(answers, longest=0.2)


async def _drain(node: Kubelet, running: Core, release: Callable[[], None]) -> None:
    """What a kubelet does at first when a pod is to end; one call is in flight until `release`."""
    draining_hook = asyncio.create_task(node.pre_stop(sidecar(node.pod)))

    async def draining() -> bool:
        return await status(running, node.name) == "draining"

    await until(draining, longest=0.2)
    # At the same time, but that one of both may be slow to start on a busy machine.
    waiting_hook = asyncio.create_task(node.pre_stop(agent(node.pod)))
    assert not await node.probe(sidecar(node.pod), "readinessProbe")
    assert not draining_hook.done()
    assert not waiting_hook.done()
    release()
    assert set(await asyncio.gather(draining_hook, waiting_hook)) == {0}, node.log
