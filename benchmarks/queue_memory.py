"""A million tasks that wait: what they take of memory and disk, and whether all goes on as fast as before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.messages.contestants import taskiq
from benchmarks.messages.ledger import MAX_LENGTH, QUEUE, Tasks, tasks_of
from benchmarks.messages.servers import place
from benchmarks.messages.spread import spread
from benchmarks.processes import module_command, pss_megabytes
from benchmarks.progress import step
from benchmarks.report import Figure, Result
from benchmarks.rig import MESH, Rig, free_port, rig

from weft.aio.poll import until
from weft.identity.tls import client_context
from weft.local.messaging_control import MessagingApi
from weft.messaging.opening import BrokerAccess, open_broker
from weft.store.nats import NatsStore

_MANIFEST = f"""
apiVersion: weft.dev/v1alpha1
kind: Queue
metadata: {{name: {QUEUE}}}
spec: {{maxLength: {MAX_LENGTH}, concurrency: 100}}
"""

_SUBMITTERS = 64
_ASKED = 7
"""How often the control plane is asked each question."""
_LIMIT = 1200.0
"""Seconds that all of it may take."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is seen while so many tasks wait."""

    nats: float
    """MB of memory."""
    control: float
    """MB of memory."""
    disk: float
    """MB."""
    answers: dict[str, float]
    """Milliseconds by question."""


async def measure(*, quick: bool = False) -> Result:
    """In a mesh: with few tasks waiting, then with a million (or 100,000)."""
    few, many, peers = (5_000, 100_000, 20_000) if quick else (20_000, 1_000_000, 100_000)
    per_message = await _peer(peers)
    async with rig() as here, _queue(here) as queue, asyncio.timeout(_LIMIT):
        step(f"queue-memory: {few:,} tasks")
        first = await _submitted(queue, few)
        with_few = await _standing(here)
        alone = await _worked(here, queue, few)
        empty = await _standing(here)
        step(f"queue-memory: {many:,} tasks")
        await _submitted(queue, many - few)
        last = await _submitted(queue, few)
        with_many = await _standing(here)
        step("queue-memory: a worker among them")
        crowded = await _worked(here, queue, few)
    told = f"{many:,} waiting"
    figures = [
        Figure(
            f"nats-server per task, {told}",
            (with_many.nats - empty.nats) * 1e6 / many,
            "bytes",
            per_message,
            "Taskiq in Redis",
        ),
        Figure(f"nats-server, {told}", with_many.nats, "MB", empty.nats, "none waiting"),
        Figure(f"control plane, {told}", with_many.control, "MB", empty.control, "none waiting"),
        Figure(f"disk, {told}", with_many.disk, "MB", empty.disk, "none waiting"),
        Figure(f"submitted, {told}", last, "tasks/s", first, "none waiting"),
        Figure(f"worked on by one agent, {told}", crowded, "tasks/s", alone, f"{few:,} waiting"),
        *(
            Figure(f"{question}, {told}", delay, "ms", with_few.answers[question], f"{few:,} waiting")
            for question, delay in with_many.answers.items()
        ),
    ]
    notes = (
        "a task is a record in the store and a message in the queue, both in NATS; in a mesh, all over TLS",
        f"memory is each process's own share (PSS); answers: medians of {_ASKED}",
    )
    return Result("A million tasks waiting" if not quick else "100,000 tasks waiting", tuple(figures), notes)


@asynccontextmanager
async def _queue(here: Rig) -> AsyncIterator[Tasks]:
    """The queue, as the control plane sees it."""
    await here.mesh.api.apply(_MANIFEST, "queue.yaml")
    keys = here.nats_keys
    roots = (keys / "roots.pem").read_bytes()
    async with AsyncExitStack() as stack:
        store = await NatsStore.connect(
            [here.mesh.state.nats_url],
            name="benchmark",
            tls=lambda: client_context(roots, keys / "control.pem"),
            credentials=keys / "control.seed",
        )
        stack.push_async_callback(store.close)
        broker = await open_broker(BrokerAccess("nats"), store)
        stack.push_async_callback(broker.aclose)
        yield await tasks_of(store, broker)


async def _submitted(queue: Tasks, count: int) -> float:
    """Submit so many; tasks a second."""
    began = time.perf_counter()
    await spread(lambda _: queue.submit(), range(count), _SUBMITTERS)
    return count / (time.perf_counter() - began)


async def _worked(here: Rig, queue: Tasks, count: int) -> float:
    """Have an agent do so many; tasks a second. It is gone afterwards."""
    before = await queue.writes()
    port = str(free_port())
    program = module_command("benchmarks.messages.weft_agent")
    sidecar = await here.sidecar(f"worker-{port}", "--port", port, agent_type="worker", program=program)
    began, first = await _written(queue, before + count // 10)
    ended, last = await _written(queue, before + 2 * count)
    await sidecar.stop(10.0)
    return (last - first) / 2 / (ended - began)


async def _written(queue: Tasks, count: int) -> tuple[float, int]:
    """When records had been written so often, and how often then."""
    writes = 0

    async def enough() -> bool:
        nonlocal writes
        writes = await queue.writes()
        return writes >= count

    await until(enough, first=0.02, longest=0.02)
    return time.perf_counter(), writes


async def _standing(here: Rig) -> Standing:
    pids = {name: child.pid for name, child in here.mesh.children.items()}
    api = MessagingApi(here.mesh.api)
    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "weft queue ls": api.queues,
        "weft queue describe": lambda: api.queue(QUEUE),
        "weft task ls, 100 tasks": lambda: api.tasks(QUEUE, state=None, limit=100),
        "weft queue peek, 100 messages": lambda: api.peek(QUEUE, dead=False, limit=100),
    }
    return Standing(
        nats=pss_megabytes(pids["nats"] or 0),
        control=pss_megabytes(pids["control"] or 0),
        disk=_size(here.directory / MESH / "nats") / 1e6,
        answers={question: await _delay(ask) for question, ask in questions.items()},
    )


async def _delay(ask: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(_ASKED):
        began = time.perf_counter()
        await ask()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1000


def _size(directory: Path) -> int:
    """Bytes on disk; files may vanish meanwhile."""
    total = 0
    for each in directory.rglob("*"):
        try:
            total += each.stat().st_blocks * 512 if each.is_file() else 0
        except FileNotFoundError:
            continue
    return total


async def _peer(count: int) -> float:
    """Bytes of Redis's memory that one of Taskiq's tasks takes while it waits."""
    step(f"queue-memory: {count:,} tasks of Taskiq's")
    async with place() as here, taskiq("by_stream")(here) as contest:
        redis = here.pids["redis"]
        before = pss_megabytes(redis)
        await contest.submit(count)
        return (pss_megabytes(redis) - before) * 1e6 / count
