"""The agent's health, as a state machine and against real servers that misbehave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from weft.aio.ports import reserve_port
from weft.model.agent import Status
from weft.model.node import Address, AgentProtocol
from weft.sidecar.health import MAX_BODY_BYTES, Check, Health, HealthMonitor, check_agent
from weft.sidecar.settings import HealthSettings

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PASSED = Check(True)
FAILED = Check(False, "answered 500")


def after(*checks: Check, settings: HealthSettings) -> Health:
    health = Health()
    for check in checks:
        health = health.after(check, settings)
    return health


def test_an_agent_is_starting_until_a_check_passes() -> None:
    settings = HealthSettings()
    assert Health().status is Status.STARTING
    failing = after(*[FAILED] * 50, settings=settings)
    assert (failing.status, failing.reason) == (Status.STARTING, "answered 500")
    assert after(FAILED, PASSED, settings=settings) == Health(Status.HEALTHY, "")


def test_checks_must_pass_in_a_row_to_make_an_agent_healthy() -> None:
    settings = HealthSettings(healthy_threshold=2)
    assert after(PASSED, FAILED, PASSED, settings=settings).status is Status.STARTING
    assert after(PASSED, FAILED, PASSED, PASSED, settings=settings).status is Status.HEALTHY


def test_checks_must_fail_in_a_row_to_make_an_agent_unhealthy() -> None:
    settings = HealthSettings(unhealthy_threshold=3)
    assert after(PASSED, FAILED, FAILED, PASSED, FAILED, FAILED, settings=settings).status is Status.HEALTHY
    unhealthy = after(PASSED, FAILED, FAILED, FAILED, settings=settings)
    assert (unhealthy.status, unhealthy.reason) == (Status.UNHEALTHY, "answered 500")


def test_an_unhealthy_agent_recovers_and_loses_its_reason() -> None:
    settings = HealthSettings(unhealthy_threshold=1, healthy_threshold=2)
    assert after(PASSED, PASSED, FAILED, PASSED, settings=settings).status is Status.UNHEALTHY
    recovered = after(PASSED, PASSED, FAILED, PASSED, PASSED, settings=settings)
    assert recovered == Health(Status.HEALTHY, "")


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[Address]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass  # the checker had enough
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with listening:
        yield Address("127.0.0.1", listening.sockets[0].getsockname()[1])


def answering(answer: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return serve


async def check(address: Address, **changes: float | str) -> Check:
    protocol = AgentProtocol.HTTP1
    return await check_agent(address, protocol, HealthSettings(**{"timeout": 10.0, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
async def test_any_2xx_passes(answer: bytes) -> None:
    async with server(answering(answer)) as address:
        assert await check(address) == PASSED


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "answered 503"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "answered 301"),
        (b"220 smtp.example ready\r\n", "not HTTP"),
        (b"\x00\xff" * 5000 + b"\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "not HTTP"),
        (b"", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY_BYTES + 1), "longer than 65536 bytes"),
    ],
)
async def test_anything_else_fails_and_says_why(answer: bytes, reason: str) -> None:
    async with server(answering(answer)) as address:
        result = await check(address)
    assert not result.passed
    assert reason in result.reason
    assert f"GET http://{address}/health" in result.reason


async def test_a_body_without_end_fails_after_64_kilobytes() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(b"HTTP/1.1 200 OK\r\n\r\n")(reader, writer)
        while True:
            writer.write(b"x" * 1000)
            await writer.drain()

    async with server(endless) as address:
        assert "longer than" in (await check(address, timeout=5.0)).reason


async def test_an_answer_that_drips_in_fails_when_its_time_is_up() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")(reader, writer)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(drip) as address:
        assert "no full answer within 0.3 s" in (await check(address, timeout=0.3)).reason


async def test_a_port_where_nobody_listens_fails() -> None:
    with reserve_port("127.0.0.1") as port:
        assert "refused" in (await check(Address("127.0.0.1", port.port))).reason


async def test_without_a_path_a_connection_is_enough() -> None:
    async with server(answering(b"garbage")) as address:
        assert await check(address, path="") == PASSED
    assert not (await check(address, path="")).passed


async def test_an_agent_that_speaks_only_http2_is_checked_by_a_connection() -> None:
    async with server(answering(b"garbage")) as address:
        assert await check_agent(address, AgentProtocol.H2C, HealthSettings()) == PASSED


async def follow(checks: list[Check], settings: HealthSettings, until: int) -> list[Health]:
    """The changes a monitor reports while its checks come from a list, whose last one repeats."""
    heard: asyncio.Queue[Health] = asyncio.Queue()

    async def next_check() -> Check:
        return checks.pop(0) if len(checks) > 1 else checks[0]

    monitor = HealthMonitor(next_check, settings, changed=heard.put_nowait)
    task = asyncio.create_task(monitor.run())
    try:
        async with asyncio.timeout(10):
            return [await heard.get() for _ in range(until)]
    finally:
        task.cancel()


async def test_the_monitor_reports_changes_only() -> None:
    settings = HealthSettings(interval=0.05, unhealthy_threshold=2)
    checks = [FAILED, PASSED, PASSED, FAILED, PASSED, FAILED, FAILED, FAILED, PASSED]
    changes = await follow(checks, settings, until=4)
    assert [(change.status, change.reason) for change in changes] == [
        (Status.STARTING, "answered 500"),
        (Status.HEALTHY, ""),
        (Status.UNHEALTHY, "answered 500"),
        (Status.HEALTHY, ""),
    ]


async def test_a_starting_agent_is_checked_more_often_than_the_interval_says() -> None:
    changes = await follow([FAILED, FAILED, FAILED, PASSED], HealthSettings(interval=60.0), until=2)
    assert changes[-1] == Health(Status.HEALTHY, "")


async def test_an_agent_that_never_becomes_healthy_is_logged_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)

    async def fail() -> Check:
        return FAILED

    monitor = HealthMonitor(fail, HealthSettings(), changed=print)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4.5):
            await monitor.run()
    assert [record.message for record in caplog.records] == ["the agent is not healthy yet: answered 500"]


CARD_REQUEST = b"GET /.well-known/agent-card.json HTTP/1.1\r\n"


async def test_an_agent_is_asked_for_what_suits_its_protocol_unless_a_path_is_given() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if line := await reader.readline():
            asked.append(line)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))

    async with server(serve) as address:
        settings = HealthSettings(timeout=10)
        # A card that is too large to be taken is no reason to send no calls.
        assert await check_agent(address, AgentProtocol.A2A, settings) == PASSED
        for protocol in (AgentProtocol.MCP, AgentProtocol.MCP_STDIO):
            assert await check_agent(address, protocol, settings) == PASSED
        assert not (await check_agent(address, AgentProtocol.HTTP1, settings)).passed
        own = HealthSettings(path="/own", timeout=10)
        assert not (await check_agent(address, AgentProtocol.MCP, own)).passed
    assert asked == [CARD_REQUEST, b"GET /health HTTP/1.1\r\n", b"GET /own HTTP/1.1\r\n"]
