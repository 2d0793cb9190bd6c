"""A sidecar beside an agent: registered, checked, drained; with the real Envoy and the real NATS."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tests.freezing import freeze
from tests.integration.sidecar_control import Control, control_plane
from tests.integration.sidecar_process import LIMIT, SidecarProcess, alive, eventually, sidecar
from tests.servers import NatsServer, nats_server

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.model.agent import Instance, Locality, Status
from weft.model.node import parse_address
from weft.registry.registry import Registry
from weft.sidecar.exit_codes import ExitCode
from weft.sidecar.http import Answer, exchange
from weft.store.nats import NatsStore

FLAKY_AGENT = str(Path(__file__).with_name("flaky_agent.py"))
FAST_HEALTH = ("--health-interval", "0.1", "--health-timeout", "1")
LEASE_TTL = 10.0


class World:
    """A NATS server, a control plane, and an agent's sidecar to be started in it."""

    def __init__(self, directory: Path, nats: NatsServer, control: Control, registry: Registry) -> None:
        self.directory = directory
        self.nats = nats
        self.control = control
        self.registry = registry
        self.mode = directory / "mode"
        self.mode.write_text("200")

    def agent(self, *arguments: str, home: str = "s1") -> AbstractAsyncContextManager[SidecarProcess]:
        """A sidecar of type `summarizer` with id `s1`, which starts the flaky agent."""
        return self.sidecar(
            "--drain-grace",
            "0.2",
            *arguments,
            command=(sys.executable, FLAKY_AGENT, str(self.mode)),
            home=home,
        )

    def sidecar(
        self, *arguments: str, command: tuple[str, ...] = (), home: str = "s1"
    ) -> AbstractAsyncContextManager[SidecarProcess]:
        """Any sidecar of type `summarizer` with id `s1`."""
        directory = self.directory / home
        directory.mkdir()
        options = ("--type", "summarizer", *FAST_HEALTH, *arguments)
        return sidecar(directory, self.control, *options, command=command, instance="s1", nats=self.nats.url)

    async def instance(self) -> Instance | None:
        """The instance as the registry has it."""
        return await self.registry.get("summarizer", "s1")

    async def has_status(self, status: Status) -> Instance:
        """Wait until the instance is registered with that status."""
        found: Instance | None = None

        async def has() -> bool:
            nonlocal found
            found = await self.instance()
            return found is not None and found.status is status

        try:
            async with asyncio.timeout(LIMIT):
                await until(has)
        except TimeoutError:
            raise AssertionError(f"not {status}: {found}\n{self._logs()}") from None
        assert found is not None
        return found

    def _logs(self) -> str:
        return "\n".join(log.read_text() for log in self.directory.glob("*/sidecar.log"))

    @asynccontextmanager
    async def held_call(self) -> AsyncIterator[asyncio.Task[Answer]]:
        """A call that the agent has begun, and the registry has heard of, while the agent's mode stays."""
        endpoint = (await self.has_status(Status.HEALTHY)).endpoint
        held = asyncio.create_task(call(endpoint, "/held"))

        async def counted() -> bool:
            instance = await self.instance()
            return instance is not None and instance.in_flight == 1

        try:
            async with asyncio.timeout(LIMIT):
                await until(counted)
            yield held
        finally:
            held.cancel()
            await asyncio.wait({held})

    async def is_gone(self) -> None:
        """Wait until the instance is not registered any more."""

        async def gone() -> bool:
            return await self.instance() is None

        async with asyncio.timeout(LIMIT):
            await until(gone)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with nats_server(tmp_path) as nats, control_plane(tmp_path) as control:
        store = await NatsStore.connect([nats.url], name="test")
        try:
            yield World(tmp_path, nats, control, await Registry.open(store, lease_ttl=LEASE_TTL))
        finally:
            await store.close()


async def call(endpoint: str, path: str) -> Answer:
    address = parse_address(endpoint)
    async with asyncio.timeout(LIMIT):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        return await exchange(reader, writer, path, max_body=1000)


async def test_an_agent_is_registered_with_all_that_is_known_of_it(world: World) -> None:
    described = ("--capability", "summarize", "--version", "2", "--label", "tier=gold", "--weight", "7")
    async with world.agent(*described, "--region", "eu", "--zone", "a"):
        instance = await world.has_status(Status.HEALTHY)
        assert instance.capabilities == {"summarize"}
        assert (instance.version, dict(instance.labels), instance.weight) == ("2", {"tier": "gold"}, 7)
        assert (instance.locality, instance.reason) == (Locality("eu", "a"), "")
        assert (await call(instance.endpoint, "/pid")).status == 200


async def test_a_program_that_ends_is_unregistered_at_once_and_tells_its_exit_code(world: World) -> None:
    async with world.agent("--lease-ttl", str(2 * LIMIT)) as running:
        instance = await world.has_status(Status.HEALTHY)
        pid = int((await call(instance.endpoint, "/pid")).body)
        (program,) = [each for each in running.family() if each.pid == pid]
        program.kill()
        await world.is_gone()
        assert await running.exit_code() == 128 + signal.SIGKILL


async def test_health_follows_what_the_agent_answers(world: World) -> None:
    async with world.agent("--unhealthy-threshold", "2"):
        await world.has_status(Status.HEALTHY)
        world.mode.write_text("500")
        assert "answered 500" in (await world.has_status(Status.UNHEALTHY)).reason
        world.mode.write_text("200")
        assert (await world.has_status(Status.HEALTHY)).reason == ""
        world.mode.write_text("garbage")
        assert "not HTTP" in (await world.has_status(Status.UNHEALTHY)).reason
        world.mode.write_text("204")
        await world.has_status(Status.HEALTHY)


async def test_an_agent_that_never_becomes_healthy_stays_starting_and_the_reason_is_told(
    world: World,
) -> None:
    world.mode.write_text("503")
    async with world.agent("--renew-interval", "0.2") as running:
        await running.logs("the agent is not healthy yet: GET http://127.0.0.1:")
        instance = await world.has_status(Status.STARTING)
        assert "answered 503" in instance.reason
        assert "answered 503" in running.log


async def test_a_drain_waits_for_the_call_in_flight(world: World) -> None:
    async with world.agent("--renew-interval", "0.2") as running, world.held_call() as held:
        running.send(signal.SIGTERM)
        await world.has_status(Status.DRAINING)
        assert not held.done()
        world.mode.write_text("201")
        assert (await held).body == b"released"
        assert await running.exit_code() == 4  # the program's own answer to SIGTERM
        assert await world.instance() is None


async def test_a_drain_waits_for_calls_that_have_not_reached_the_agent_yet(world: World) -> None:
    async with world.agent("--renew-interval", "0.2") as running:
        endpoint = (await world.has_status(Status.HEALTHY)).endpoint
        address = parse_address(endpoint)
        async with asyncio.timeout(LIMIT), httpx.AsyncClient(trust_env=False) as others:
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(b"GET /pid HTTP/1.1\r\nhost: agent\r\n")

            async def asks_to_go() -> bool:
                answer = await others.get(f"http://{endpoint}/pid")
                return "close" in answer.headers.get_list("connection")

            running.send(signal.SIGTERM)
            await until(asks_to_go)
            writer.write(b"\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            writer.close()
            await writer.wait_closed()
        assert await running.exit_code() == 4


async def test_calls_are_served_until_all_callers_have_heard_of_the_drain(world: World) -> None:
    async with world.agent("--drain-grace", str(2 * LIMIT)) as running:
        endpoint = (await world.has_status(Status.HEALTHY)).endpoint
        running.send(signal.SIGTERM)
        await world.has_status(Status.DRAINING)
        assert (await call(endpoint, "/pid")).status == 200
        running.send(signal.SIGINT)  # waits no longer
        assert await running.exit_code() == 4


async def test_a_call_that_outlasts_the_drain_is_given_up_and_counted(world: World) -> None:
    short = ("--drain-timeout", "0.3", "--renew-interval", "0.2")
    async with world.agent(*short) as running, world.held_call() as held:
        running.send(signal.SIGTERM)
        assert await running.exit_code() == 4
        assert "1 calls had not ended after 0.3 s" in running.log
        assert (await held).status == 503


async def test_a_second_signal_hurries(world: World) -> None:
    long = ("--drain-timeout", "300", "--renew-interval", "0.2")
    async with world.agent(*long) as running, world.held_call() as held:
        running.send(signal.SIGINT)
        await world.has_status(Status.DRAINING)
        running.send(signal.SIGINT)
        assert await running.exit_code() == 4
        assert (await held).status == 503
        assert await world.instance() is None


async def test_an_agent_whose_envoy_dies_is_out_until_it_is_back_on_the_same_port(world: World) -> None:
    async with world.agent() as running:
        before = await world.has_status(Status.HEALTHY)
        pid = (await call(before.endpoint, "/pid")).body
        running.envoy().kill()
        assert "Envoy" in (await world.has_status(Status.UNHEALTHY)).reason
        after = await world.has_status(Status.HEALTHY)
        assert after.endpoint == before.endpoint
        assert (await call(after.endpoint, "/pid")).body == pid


async def test_the_registration_of_a_killed_sidecar_lapses_and_nothing_else_of_it_is_left(
    world: World,
) -> None:
    async with world.agent("--lease-ttl", "1", "--renew-interval", "0.3") as running:
        await world.has_status(Status.HEALTHY)
        family = running.family()
        running.send(signal.SIGKILL)
        await world.is_gone()
        await eventually(lambda: not any(alive(each) for each in family), lambda: f"{family} survived")


async def test_a_second_instance_of_the_same_name_is_refused_before_its_program_starts(world: World) -> None:
    async with world.agent("--renew-interval", "0.3"):
        first = await world.has_status(Status.HEALTHY)
        async with world.sidecar(command=("sh", "-c", "echo hello"), home="twin") as twin:
            assert await twin.exit_code() == ExitCode.CONFLICT
            assert "summarizer" in twin.log
            assert "s1" in twin.log
            assert "hello" not in twin.log
        still = await world.has_status(Status.HEALTHY)
        assert still.incarnation == first.incarnation


async def test_a_sidecar_that_was_frozen_while_a_namesake_took_over_gives_way(world: World) -> None:
    short_lease = ("--lease-ttl", "2", "--renew-interval", "0.3")
    async with world.agent(*short_lease) as frozen:
        first = await world.has_status(Status.HEALTHY)
        freeze(frozen.process.pid)
        async with world.agent(*short_lease, home="heir"):
            second = await world.has_status(Status.HEALTHY)
            while second.incarnation == first.incarnation:
                second = await world.has_status(Status.HEALTHY)
            frozen.send(signal.SIGCONT)
            assert await frozen.exit_code() == ExitCode.CONFLICT
            assert (await world.has_status(Status.HEALTHY)).incarnation == second.incarnation


async def test_without_nats_it_gives_up_after_a_while_and_says_where_it_looked(tmp_path: Path) -> None:
    with reserve_port("127.0.0.1") as free:
        nats = f"nats://127.0.0.1:{free.port}"
        options = ("--type", "summarizer", "--start-timeout", "1")
        async with (
            control_plane(tmp_path) as control,
            sidecar(tmp_path, control, *options, command=("sh", "-c", "echo hello"), nats=nats) as running,
        ):
            assert await running.exit_code() == ExitCode.UNAVAILABLE
            assert f"127.0.0.1:{free.port}" in running.log
            assert "connecting to NATS failed for 1 s" in running.log
            assert "hello" not in running.log
            assert "Traceback" not in running.log


async def test_a_sidecar_waits_for_nats_to_come_up(world: World) -> None:
    await world.nats.kill()
    async with world.agent() as running:
        await running.logs("connecting to NATS")
        await world.nats.restart()
        await world.has_status(Status.HEALTHY)


async def test_an_outage_of_nats_leaves_the_agent_serving_and_registers_it_anew(world: World) -> None:
    async with world.agent("--lease-ttl", "1", "--renew-interval", "0.3") as running:
        endpoint = (await world.has_status(Status.HEALTHY)).endpoint
        await world.nats.kill()
        await running.logs("summarizer.s1 cannot be renewed, trying on")
        assert (await call(endpoint, "/pid")).status == 200
        await world.nats.restart()
        await running.logs("the store can be reached again; summarizer.s1 is registered")
        assert (await world.has_status(Status.HEALTHY)).endpoint == endpoint


async def test_an_agent_that_somebody_else_started_is_left_alone(world: World) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nmine")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with world.sidecar("--port", str(port), "--drain-grace", "0.1") as running:
            instance = await world.has_status(Status.HEALTHY)
            assert (await call(instance.endpoint, "/")).body == b"mine"
            running.send(signal.SIGTERM)
            assert await running.exit_code() == ExitCode.OK
            assert await world.instance() is None
        assert (await call(f"127.0.0.1:{port}", "/")).body == b"mine"
