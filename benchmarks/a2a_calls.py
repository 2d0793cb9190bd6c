"""A call by A2A: the official client to an agent through the mesh, beside the same client to it directly."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack

import httpx
from a2a.client import Client, ClientConfig, create_client
from a2a.types import Message, Part, Role, SendMessageRequest, TaskState
from benchmarks.closed_loop import Request, compare
from benchmarks.processes import module_command
from benchmarks.progress import step
from benchmarks.report import Figure, Result
from benchmarks.rig import HOST, answers, free_port, rig

CONCURRENCY = (1, 16)
"""Calls in flight."""

_TYPE = "echo"
_TIMEOUT = 30.0


async def measure(*, quick: bool = False) -> Result:
    """Call in interleaved rounds through the mesh and directly; tell medians."""
    rounds, seconds = (2, 1.0) if quick else (5, 2.0)
    async with rig() as place, AsyncExitStack() as stack:
        step("a2a: starting a mesh and an agent")
        port = free_port()
        program = module_command("benchmarks.echo_agent")
        await place.sidecar(f"{_TYPE}-1", "--port", str(port), agent_type=_TYPE, program=program)
        await answers(place.mesh.proxy_url, _TYPE)
        requests = {
            "mesh": _sending(await _client(stack, f"http://{_TYPE}.mesh", place.mesh.proxy_url)),
            "direct": _sending(await _client(stack, f"http://{HOST}:{port}", None)),
        }
        figures: list[Figure] = []
        for concurrency in CONCURRENCY:
            step(f"a2a: {concurrency} calls in flight")
            found = await compare(requests, concurrency, rounds, seconds)
            load = f"{concurrency} in flight"
            mesh, direct = found["mesh"], found["direct"]
            figures += [
                Figure(f"rate, {load}", mesh.rate, "calls/s", direct.rate, "direct"),
                Figure(f"p50, {load}", mesh.p50, "ms", direct.p50, "direct"),
            ]
    notes = (
        f"medians of {rounds} interleaved rounds of {seconds:g} s; SendMessage by JSON-RPC, "
        "with a2a-sdk's client, which waits for the task's end; the agent keeps each task durably, both ways",
    )
    return Result("Calls by A2A", tuple(figures), notes)


async def _client(stack: AsyncExitStack, url: str, proxy: str | None) -> Client:
    http = await stack.enter_async_context(httpx.AsyncClient(proxy=proxy, timeout=_TIMEOUT, trust_env=False))
    return await create_client(url, ClientConfig(streaming=False, httpx_client=http))


def _sending(client: Client) -> Request:
    async def request() -> None:
        message = Message(message_id=uuid.uuid4().hex, role=Role.ROLE_USER, parts=[Part(text="Weft")])
        async for answer in client.send_message(SendMessageRequest(message=message)):
            if answer.task.status.state != TaskState.TASK_STATE_COMPLETED:
                raise RuntimeError(f"the agent did not complete the task: {answer}")

    return request
