"""A drain that others than signals begin, and what a kubelet asks of a sidecar."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from prometheus_client import CollectorRegistry

from weft.aio.ports import reserve_port
from weft.model.node import Address
from weft.sidecar import kubelet_answers
from weft.sidecar.departure import Departure, DrainServer
from weft.sidecar.http import exchange
from weft.sidecar.kubelet_answers import KubeletAnswers
from weft.sidecar.local_server import LocalAnswer, LocalRequest, LocalServer
from weft.sidecar.metrics import SidecarMetrics
from weft.sidecar.metrics_server import MetricsServer

HOST = "127.0.0.1"
LIMIT = 60.0


class Drain:
    """One that ends when it is let."""

    def __init__(self) -> None:
        self.started = 0
        self.let = asyncio.Event()
        self.begun = asyncio.Event()

    async def __call__(self) -> None:
        self.started += 1
        self.begun.set()
        await self.let.wait()


async def hook(socket: Path) -> asyncio.subprocess.Process:
    """The hook, begun."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "weft.sidecar.drain_hook", str(socket)),
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )


@asynccontextmanager
async def drain_server(departure: Departure) -> AsyncIterator[Path]:
    with TemporaryDirectory(prefix="wt-", dir="/tmp") as directory:
        server = DrainServer(departure)
        await server.listen(Path(directory, "drain.sock"))
        try:
            yield Path(directory, "drain.sock")
        finally:
            await server.aclose()
            assert not _left_in(Path(directory))


def _left_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def test_a_hook_has_the_sidecar_drain_and_ends_when_it_has() -> None:
    drain = Drain()
    async with asyncio.timeout(LIMIT), drain_server(Departure(drain)) as socket:
        asking = await hook(socket)
        await drain.begun.wait()
        assert asking.returncode is None
        drain.let.set()
        assert await asking.wait() == 0
        # Told again, by a kubelet that was started anew.
        assert await (await hook(socket)).wait() == 0
    assert drain.started == 1


async def test_a_hook_fails_where_no_sidecar_hears_it(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT):
        asking = await hook(tmp_path / "nothing.sock")
        _, said = await asking.communicate()
    assert asking.returncode == 1
    assert b"nothing.sock" in said


async def test_a_hook_fails_where_the_sidecar_ends_before_it_has_drained() -> None:
    drain = Drain()
    async with asyncio.timeout(LIMIT):
        async with drain_server(Departure(drain)) as socket:
            asking = await hook(socket)
            await drain.begun.wait()
        _, said = await asking.communicate()
    assert asking.returncode == 1
    assert b"before it had drained" in said


async def test_whoever_gives_up_waiting_does_not_end_the_drain() -> None:
    drain = Drain()
    departure = Departure(drain)
    async with asyncio.timeout(LIMIT):
        waiting = asyncio.create_task(departure.over())
        await drain.begun.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        drain.let.set()
        await departure.over()
    assert drain.started == 1


class Pod:
    """A sidecar as its kubelet sees it, and its agent."""

    def __init__(self, probes: dict[str, str]) -> None:
        self.probes = probes
        self.reason = ""
        self.drain = Drain()
        self.departure = Departure(self.drain)
        self.status = 200
        self.asked: list[str] = []
        self.port = 0

    async def agent(self, request: LocalRequest) -> LocalAnswer:
        self.asked.append(request.path)
        return LocalAnswer(self.status, {"Location": "/elsewhere"})

    async def get(self, path: str) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        answer = await exchange(reader, writer, path, max_body=100_000)
        return answer.status, answer.body.decode()


@asynccontextmanager
async def served(probes: dict[str, str] | None = None) -> AsyncIterator[Pod]:
    pod = Pod(probes or {})
    agent = LocalServer("agent", pod.agent, max_body=0)
    port = await agent.listen(HOST)
    answers = KubeletAnswers(
        Address(HOST, port), pod.probes, unready=lambda: pod.reason, departure=pod.departure
    )
    server = MetricsServer(_no_metrics, None, CollectorRegistry(), answers)
    held = reserve_port(HOST)
    pod.port = held.port
    await server.listen(held.take())
    try:
        async with asyncio.timeout(LIMIT):
            yield pod
    finally:
        await server.aclose()
        await agent.aclose()
        await pod.departure.give_up()


async def _no_metrics() -> SidecarMetrics:
    raise AssertionError("nobody asks for metrics")


async def test_a_sidecar_says_whether_it_is_ready_and_why_not() -> None:
    async with served() as pod:
        assert (await pod.get("/ready"))[0] == 200
        pod.reason = "its Envoy is not ready"
        status, said = await pod.get("/ready")
        assert status == 503
        assert "its Envoy is not ready" in said
        assert (await pod.get("/live"))[0] == 200


async def test_a_probe_of_the_agent_is_made_by_its_name_and_by_that_only() -> None:
    async with served({"liveness": "/health?deep=1", "readiness": ""}) as pod:
        assert (await pod.get("/agent/probes/liveness"))[0] == 200
        assert pod.asked == ["/health?deep=1"]
        assert (await pod.get("/agent/probes/readiness"))[0] == 200
        assert (await pod.get("/agent/probes/health"))[0] == 404
        assert (await pod.get("/agent/probes//secrets"))[0] == 404
        assert pod.asked == ["/health?deep=1"]


@pytest.mark.parametrize(("status", "passed"), [(204, 200), (302, 200), (404, 503), (500, 503)])
async def test_an_agents_probe_passes_where_a_kubelet_would_let_it(status: int, passed: int) -> None:
    async with served({"liveness": "/health"}) as pod:
        pod.status = status
        assert (await pod.get("/agent/probes/liveness"))[0] == passed


async def test_an_agent_that_is_not_there_fails_its_probes() -> None:
    with reserve_port(HOST) as nobody:
        for path in ("/health", ""):
            check = await kubelet_answers.probe_agent(Address(HOST, nobody.port), path)
            assert not check.passed
            assert "Connection refused" in check.reason


async def test_the_end_of_a_drain_is_waited_for_and_no_drain_begun() -> None:
    async with served() as pod:
        waiting = asyncio.create_task(pod.get("/drained"))
        leaving = asyncio.create_task(pod.departure.over())
        await pod.drain.begun.wait()
        assert not waiting.done()
        pod.drain.let.set()
        await leaving
        assert (await waiting)[0] == 200


async def test_who_waits_for_a_drain_that_does_not_begin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubelet_answers, "DRAIN_AWAITED", 0.01)
    async with served() as pod:
        status, said = await pod.get("/drained")
        assert status == 503
        assert "no drain has begun" in said
        assert pod.drain.started == 0
