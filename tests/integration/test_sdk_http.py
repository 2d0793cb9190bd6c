"""Agents and the client over real sockets and in real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import textwrap
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from weft import (
    Agent,
    AgentFailed,
    ChangeKind,
    Conflict,
    Interrupted,
    Mesh,
    TimedOut,
    Unavailable,
)
from weft.sdk.server import bind, serving_http
from weft.testing import InMemoryMesh

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def address_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{port_of(listener)}"


@asynccontextmanager
async def foreign_server(connected: Connected, listener: socket.socket | None = None) -> AsyncIterator[str]:
    """Anything that speaks, or does not speak, HTTP."""
    listener = listener or bind("127.0.0.1", 0)
    server = await asyncio.start_server(connected, sock=listener)
    async with server:
        yield address_of(listener)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    return head + await reader.readexactly(length)


def answering(*answers: bytes) -> tuple[Connected, list[bytes]]:
    """A server that gives each connection the next of `answers` and closes it; and what it was sent."""
    left = list(answers)
    requests: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(left.pop(0))
        await writer.drain()
        writer.close()

    return connected, requests


def ok(body: bytes, content_type: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        content_type,
        len(body),
        body,
    )


async def test_the_host_names_the_destination_and_the_environments_proxy_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    connected, requests = answering(ok(b'{"result": 1}'))
    async with foreign_server(connected) as address, Mesh(proxy=address) as mesh:
        assert await mesh.request("summarize.cap", "summarize") == 1
    assert requests[0].startswith(b"POST /rpc HTTP/1.1\r\n")
    assert b"\r\nhost: summarize.cap.mesh\r\n" in requests[0].lower()


async def test_the_sidecar_is_found_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    connected, _ = answering(ok(b'{"result": 1}'))
    async with foreign_server(connected) as address:
        monkeypatch.setenv("WEFT_PROXY", address)
        async with Mesh() as mesh:
            assert await mesh.request("a", "b") == 1


async def test_redirects_are_not_followed() -> None:
    redirect = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"
    connected, requests = answering(redirect)
    async with foreign_server(connected) as address, Mesh(proxy=address) as mesh:
        with pytest.raises(AgentFailed):
            await mesh.request("a", "b")
    assert len(requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"answer": 1}', b"null"])
async def test_an_answer_without_a_result_is_the_agents_failure(body: bytes) -> None:
    connected, _ = answering(ok(body))
    async with foreign_server(connected) as address, Mesh(proxy=address) as mesh:
        with pytest.raises(AgentFailed, match="result"):
            await mesh.request("a", "b")


async def test_an_answer_over_the_limit_is_the_agents_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weft.sdk.calls.MAX_ANSWER_BYTES", 1000)
    connected, _ = answering(ok(b"x" * 1001))
    async with foreign_server(connected) as address, Mesh(proxy=address) as mesh:
        with pytest.raises(AgentFailed, match="larger than 1000 bytes"):
            await mesh.request("a", "b")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200", ok(b'{"result": 1}')[:-3], b"220 SMTP ready\r\n\r\n"]
)
async def test_a_connection_that_breaks_midway_is_interrupted_and_not_repeated(answer: bytes) -> None:
    connected, requests = answering(answer, ok(b'{"result": 1}'))
    async with foreign_server(connected) as address, Mesh(proxy=address) as mesh:
        with pytest.raises(Interrupted):
            await mesh.request("a", "b")
        assert len(requests) == 1


async def test_with_an_idempotency_key_a_broken_call_is_repeated_with_the_same_key() -> None:
    connected, requests = answering(b"", ok(b'{"result": 1}')[:-3], ok(b'{"result": 1}'))
    async with foreign_server(connected) as address, Mesh(proxy=address) as mesh:
        assert await mesh.request("a", "b", idempotency_key="k-1") == 1
    assert len(requests) == 3
    assert all(b"idempotency-key: k-1" in request.lower() for request in requests)


async def test_a_call_waits_for_a_sidecar_that_restarts() -> None:
    held = bind("127.0.0.1", 0)  # bound, not listening: connections are refused
    connected, requests = answering(ok(b'{"result": 1}'))
    async with Mesh(proxy=address_of(held)) as mesh:
        call = asyncio.create_task(mesh.request("a", "b"))
        done, _ = await asyncio.wait((call,), timeout=0.3)
        assert not done
        async with foreign_server(connected, held):
            assert await call == 1
    assert len(requests) == 1


async def test_a_sidecar_that_stays_away_is_unavailable_within_the_timeout() -> None:
    held = bind("127.0.0.1", 0)
    async with Mesh(proxy=address_of(held)) as mesh, asyncio.timeout(60):
        with pytest.raises(Unavailable, match="does not take connections"):
            await mesh.request("a", "b", timeout=0.3)
        with pytest.raises(Unavailable, match="does not take connections"):
            await anext(mesh.stream("a", "b", idle_timeout=0.3))
    held.close()


async def test_a_stream_that_ends_without_saying_so_is_interrupted() -> None:
    connected, _ = answering(ok(b"data: 1\n\n", b"text/event-stream"))
    async with foreign_server(connected) as address, Mesh(proxy=address) as mesh:
        stream = mesh.stream("a", "b")
        assert await anext(stream) == 1
        with pytest.raises(Interrupted):
            await anext(stream)


async def test_a_silent_stream_times_out_and_its_connection_is_closed() -> None:
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
        await reader.read()
        closed.set()
        writer.close()

    async with foreign_server(silent) as address, Mesh(proxy=address) as mesh, asyncio.timeout(60):
        stream = mesh.stream("a", "b", idle_timeout=0.2)
        assert await anext(stream) == 1
        with pytest.raises(TimedOut, match="silent"):
            await anext(stream)
        await closed.wait()


async def test_json_where_a_stream_was_asked_for_is_the_agents_failure() -> None:
    connected, _ = answering(ok(b'{"result": 1}'))
    async with foreign_server(connected) as address, Mesh(proxy=address) as mesh:
        with pytest.raises(AgentFailed, match="stream of events"):
            await anext(mesh.stream("a", "b"))


async def test_a_watch_goes_on_after_a_lost_connection_and_repeats_nothing() -> None:
    listener = bind("127.0.0.1", 0)
    again = socket.socket(fileno=os.dup(listener.fileno()))
    worker = Agent("worker")
    async with InMemoryMesh() as behind, Mesh(proxy=address_of(listener)) as mesh, asyncio.timeout(60):
        first, _ = behind.add(worker, 2)
        async with aclosing(mesh.watch("worker")) as changes:
            async with serving_http(behind.asgi, listener):
                assert [(await anext(changes)).kind for _ in range(2)] == [ChangeKind.ADDED] * 2
            behind.kill(first)
            behind.add(worker)
            async with serving_http(behind.asgi, again):
                seen = [await anext(changes) for _ in range(2)]
    assert [(change.kind, change.instance.id) for change in seen] == [
        (ChangeKind.ADDED, "worker-3"),
        (ChangeKind.REMOVED, "worker-1"),
    ]


async def test_a_body_over_the_limit_is_refused_while_it_arrives() -> None:
    agent = Agent("worker", max_body_bytes=1000)
    async with agent.serving() as address, asyncio.timeout(60):
        host, _, port = address.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /rpc HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"x" * 1000 + b"\r\n" + b"1\r\nx\r\n"
        )
        assert b" 413 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_a_port_that_is_taken_is_a_conflict_that_names_it() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(Conflict, match=str(port_of(taken))):
            async with Agent("worker").serving(port=port_of(taken)):
                pass


PROGRAM = """
import asyncio
from weft import Agent

agent = Agent("worker", drain_timeout={drain_timeout})

@agent.handles("slow")
async def slow(seconds: float) -> str:
    print("began", flush=True)
    await asyncio.sleep(seconds)
    return "done"

@agent.streams("endless")
async def endless():
    yield 1
    await asyncio.Event().wait()

agent.run()
"""


@asynccontextmanager
async def agent_process(tmp_path: Path, drain_timeout: float) -> AsyncIterator[tuple[Process, Mesh]]:
    program = tmp_path / "worker.py"
    program.write_text(textwrap.dedent(PROGRAM.format(drain_timeout=drain_timeout)))
    environment = {**os.environ, "WEFT_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), env=environment, stdout=PIPE, stderr=PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(60):
            line = (await process.stderr.readline()).decode()
        address = line.split()[-1]
        async with Mesh(proxy=address) as mesh, asyncio.timeout(60):
            yield process, mesh
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_sigterm_finishes_what_is_in_flight_and_exits_cleanly(tmp_path: Path) -> None:
    async with agent_process(tmp_path, drain_timeout=10) as (process, mesh):
        assert process.stdout is not None
        call = asyncio.create_task(mesh.request("worker", "slow", seconds=0.5))
        assert await process.stdout.readline() == b"began\n"
        process.send_signal(signal.SIGTERM)
        assert await call == "done"
        assert await process.wait() == 0


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
async def test_what_is_not_done_in_time_is_interrupted(tmp_path: Path, signals: list[int]) -> None:
    drain_timeout = 0.2 if len(signals) == 1 else 60
    async with agent_process(tmp_path, drain_timeout) as (process, mesh):
        assert process.stdout is not None
        stream = mesh.stream("worker", "endless")
        assert await anext(stream) == 1
        call = asyncio.create_task(mesh.request("worker", "slow", seconds=60))
        assert await process.stdout.readline() == b"began\n"
        for number in signals:
            process.send_signal(number)
            await asyncio.sleep(0.1)  # two signals sent at once are one to the kernel
        for broken in (call, anext(stream)):
            with pytest.raises(Interrupted):
                await broken
        assert await process.wait() == 0
