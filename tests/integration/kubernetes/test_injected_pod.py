"""An injected pod, lived through as by its kubelet: two real processes, by what stands in the pod alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from tests.cluster import ISSUER, Cluster
from tests.integration.sidecar_process import eventually
from tests.processes import Core, core
from tests.unit.kubernetes.pods import agent, environment_of, fields_of, injected, pod, sidecar

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.errors import NotFound
from weft.kubernetes.injection import InjectionSettings
from weft.kubernetes.sidecar_container import expanded

NAME = "summarizer-7d9f-x2x9p"
POD_IP = "127.0.0.2"
"""Another one than the loopback at which the agent listens: whoever asks there asks the sidecar."""
LIMIT = 120.0
PROGRAM = Path(__file__).with_name("pod_agent.py")


class Kubelet:
    """Starts, probes and stops the containers of one pod."""

    def __init__(self, found: dict[str, Any], log: Path) -> None:
        self.pod = found
        self._log = log
        self._fields = fields_of(NAME, POD_IP)
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


@asynccontextmanager
async def mesh(directory: Path, cluster: Cluster) -> AsyncIterator[Core]:
    """A mesh whose control plane knows a cluster."""
    environ = {
        **os.environ,
        "WEFT_CONTROL_SERVICE_ACCOUNT_ISSUER": ISSUER,
        "WEFT_CONTROL_SERVICE_ACCOUNT_KEYS_FILE": str(cluster.keys),
    }
    with core(directory / "mesh", environ, lease_ttl=3.0) as running:
        await running.start()
        yield running


@asynccontextmanager
async def kubelet(found: dict[str, Any], log: Path) -> AsyncIterator[Kubelet]:
    running = Kubelet(found, log)
    try:
        yield running
    finally:
        await running.end()


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


def token_of(cluster: Cluster) -> str:
    """What the cluster projects into the pod."""
    about: Any = {"namespace": "crew", "pod": {"name": NAME}, "serviceaccount": {"name": "summarizer"}}
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


async def status(running: Core) -> str:
    """Of the pod's instance, as the control plane has it."""
    async with running.api() as api:
        try:
            return str((await api.agent("summarizer", NAME))["status"])
        except NotFound:
            return "gone"


async def test_an_injected_pod_is_started_called_drained_and_stopped_in_its_order(tmp_path: Path) -> None:
    state = tmp_path / "agent"
    state.mkdir()
    cluster = Cluster(tmp_path)
    async with AsyncExitStack() as ends:
        await ends.enter_async_context(asyncio.timeout(4 * LIMIT))
        running = await ends.enter_async_context(mesh(tmp_path, cluster))
        volumes = ends.enter_context(mounted(running, token_of(cluster)))
        *ports, agent_port = free_ports(4)
        found = injected(summarizer(state, agent_port), settings(running, volumes, ports)).pod
        node = await ends.enter_async_context(kubelet(found, tmp_path / "pod.log"))
        door = await ends.enter_async_context(
            httpx.AsyncClient(proxy=running.proxy_url, trust_env=False, timeout=LIMIT)
        )
        await _start(node)
        await _call(door)
        held = asyncio.create_task(door.get("http://summarizer.mesh/held"))
        await eventually((state / "held").exists, lambda: node.log)
        await _drain(node, running, (state / "release").touch)
        assert (await held).text == NAME
        assert await node.stop(agent(found)) == 0
        # The sidecar was there until after the agent, which could read its identity.
        assert (state / "farewell").read_text() == "200 True"
        assert await node.stop(sidecar(found)) == 0
        assert await status(running) == "gone"
        runtime = volumes / "runtime"
        await eventually(lambda: not any(runtime.iterdir()), lambda: f"{list(runtime.iterdir())} were left")


async def _start(node: Kubelet) -> None:
    await node.start(sidecar(node.pod))
    await until(lambda: node.probe(sidecar(node.pod), "startupProbe"))
    assert await node.probe(sidecar(node.pod), "livenessProbe")
    assert not await node.probe(agent(node.pod), "livenessProbe")
    await node.start(agent(node.pod))
    await until(lambda: node.probe(agent(node.pod), "readinessProbe"))
    assert await node.probe(agent(node.pod), "livenessProbe")


async def _call(door: httpx.AsyncClient) -> None:
    async def answers() -> bool:
        answer = await door.get("http://summarizer.mesh/")
        return answer.status_code == 200 and answer.text == NAME

    await until(answers, longest=0.2)


async def _drain(node: Kubelet, running: Core, release: Callable[[], None]) -> None:
    """What a kubelet does at first when a pod is to end; one call is in flight until `release`."""
    hooks = [asyncio.create_task(node.pre_stop(each)) for each in (sidecar(node.pod), agent(node.pod))]

    async def draining() -> bool:
        return await status(running) == "draining"

    await until(draining, longest=0.2)
    assert not any(each.done() for each in hooks)
    assert not await node.probe(sidecar(node.pod), "readinessProbe")
    release()
    assert await asyncio.gather(*hooks) == [0, 0], node.log
