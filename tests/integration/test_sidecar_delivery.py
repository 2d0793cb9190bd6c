"""Events and tasks that a sidecar hands to agents of other makes: aiohttp's server, and Node's."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cloudevents.core.bindings import http as sdk
from tests.span_collector import span_collector

from weft.aio.poll import until
from weft.errors import AgentFailed, Interrupted, InvalidRequest, Refused, TimedOut, TooMany
from weft.events.publisher import EventPublisher
from weft.events.subscriber import ReceivedEvent, Subscriber
from weft.messaging.broker import GroupSettings, QueueSettings, TopicSettings
from weft.messaging.brokers.memory import MemoryBroker
from weft.model.cloud_event import CloudEvent
from weft.model.event_format import EventFormat
from weft.model.node import Address
from weft.model.queue import QueueSpec
from weft.model.redelivery import Backoff
from weft.model.task import Task, TaskState
from weft.model.topic import TopicSpec
from weft.sdk.span_export import OtlpEndpoint
from weft.sidecar.agent_client import AgentClient
from weft.sidecar.event_delivery import EventDelivery
from weft.sidecar.lease_server import LeaseServer
from weft.sidecar.task_delivery import TaskDelivery
from weft.store.memory import MemoryStore
from weft.tasks.client import TaskClient
from weft.tasks.worker import Worker
from weft.tracing.settings import TracingSettings
from weft.tracing.tracer import NO_TRACER, Tracer
from weft.work.spans import told_of

LIMIT = 60.0
HOST = "127.0.0.1"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EVENT = CloudEvent(
    id="e1",
    source="/shop",
    type="order.created",
    subject="Grüße",
    time=datetime(2026, 11, 5, tzinfo=UTC),
    datacontenttype="application/json",
    data=b'{"total": 5}',
)
RECEIVED = ReceivedEvent(EVENT, "orders", "created", 7, 2, {"traceparent": TRACE, "x-weft-context": "chat-1"})

Answering = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def agent(answering: Answering, **options: Any) -> AsyncIterator[AgentClient]:
    """An agent that answers so to whatever it is asked, and a client of it."""
    server = web.Server(answering, **options)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        async with AgentClient(Address(HOST, runner.addresses[0][1])) as client:
            yield client
    finally:
        await runner.cleanup()


class Notebook:
    """Answers alike to all requests, and notes them."""

    def __init__(self, status: int = 204, headers: Mapping[str, str] | None = None, text: str = "") -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections: set[Any] = set()
        self._answer = (status, headers, text)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((f"{request.method} {request.path}", headers, await request.read()))
        self.connections.add(request.transport)
        status, own, text = self._answer
        return web.Response(status=status, headers=own, text=text or None)


async def deliver(answering: Answering, event_format: EventFormat = EventFormat.BINARY) -> None:
    async with agent(answering) as client:
        await EventDelivery(client, time_limit=LIMIT, event_format=event_format)(RECEIVED)


@pytest.mark.parametrize("event_format", [EventFormat.BINARY, EventFormat.STRUCTURED])
async def test_an_event_is_posted_so_that_the_official_sdk_reads_it(event_format: EventFormat) -> None:
    notebook = Notebook()
    await deliver(notebook, event_format)
    [(request, headers, body)] = notebook.requests
    assert request == "POST /events"
    if event_format is EventFormat.BINARY:
        read = sdk.from_binary_event(sdk.HTTPMessage(headers, body))
    else:
        read = sdk.from_structured_event(sdk.HTTPMessage(headers, body))
    assert (read.get_id(), read.get_subject(), read.get_time()) == ("e1", "Grüße", EVENT.time)
    assert read.get_data() == {"total": 5}
    assert headers["traceparent"] == TRACE
    assert headers["x-weft-context"] == "chat-1"
    assert (headers["x-weft-topic"], headers["x-weft-delivery"]) == ("orders.created", "2")


async def test_a_program_that_knows_no_cloud_events_gets_topic_and_event() -> None:
    notebook = Notebook()
    await deliver(notebook, EventFormat.MESH)
    [(_, headers, body)] = notebook.requests
    assert json.loads(body) == {"topic": "orders.created", "event": {"total": 5}}
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (500, {}, AgentFailed),
        (301, {"location": "http://elsewhere/"}, AgentFailed),
        (503, {}, AgentFailed),
        (503, {"x-weft-refused": "draining"}, Refused),
        (408, {}, AgentFailed),
        (409, {}, AgentFailed),
        (425, {}, AgentFailed),
        (429, {}, AgentFailed),
        (404, {}, InvalidRequest),
        (422, {"retry-after": "1"}, InvalidRequest),
    ],
)
async def test_answers_say_what_becomes_of_an_event(
    status: int, headers: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"answered {status}: no such customer"):
        await deliver(Notebook(status, headers, "no such\tcustomer".replace("\t", " ")))


@pytest.mark.parametrize("dated", [False, True])
async def test_retry_after_says_when_an_event_is_to_come_again(dated: bool) -> None:
    moment = datetime.fromtimestamp(time.time() + 120, UTC)
    later = format_datetime(moment, usegmt=True) if dated else "120"
    with pytest.raises(TooMany) as caught:
        await deliver(Notebook(503, {"retry-after": later}))
    assert 0 < caught.value.retry_after <= 120


async def test_an_agent_that_is_not_there_has_refused() -> None:
    with socket.socket() as held:
        held.bind((HOST, 0))
        async with AgentClient(Address(HOST, held.getsockname()[1])) as client:
            with pytest.raises(Refused, match="cannot be reached"):
                await EventDelivery(client, time_limit=LIMIT)(RECEIVED)


async def test_an_agent_that_does_not_answer_is_cut_off() -> None:
    gone = asyncio.Event()

    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        try:
            await asyncio.sleep(LIMIT)
        finally:
            gone.set()
        raise AssertionError("it was to be cut off")

    async with agent(hang, handler_cancellation=True) as client:
        with pytest.raises(TimedOut):
            await EventDelivery(client, time_limit=0.1)(RECEIVED)
        async with asyncio.timeout(LIMIT):
            await gone.wait()


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"]
)
async def test_an_agent_that_breaks_off_may_have_worked(answer: bytes) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(break_off, HOST, 0)
    async with server, AgentClient(Address(HOST, server.sockets[0].getsockname()[1])) as client:
        with pytest.raises(Interrupted):
            await client.post("/events", {}, b"", max_body=10, timeout=LIMIT)


async def test_connections_are_used_again_and_not_after_they_were_closed() -> None:
    notebook = Notebook()
    async with agent(notebook, keepalive_timeout=0.01) as client:
        delivery = EventDelivery(client, time_limit=LIMIT)
        for _ in range(5):
            await delivery(RECEIVED)
        assert len(notebook.connections) == 1
        [kept] = notebook.connections

        async def closed() -> bool:
            return bool(kept.is_closing())

        async with asyncio.timeout(LIMIT):
            await until(closed)
        await delivery(RECEIVED)
    assert len(notebook.requests) == 6


async def test_of_a_long_answer_only_the_status_counts() -> None:
    await deliver(Notebook(200, {}, "x" * 1_000_000))


async def test_events_of_a_topic_reach_an_agent_until_it_takes_them() -> None:
    broker = MemoryBroker()
    spec = TopicSpec(backoff=Backoff(initial=0.01), max_deliveries=3)

    async def topics(name: str) -> TopicSpec:
        return spec

    for name in ("orders", "dead-letters"):
        await broker.declare_topic(TopicSettings(name))
        await broker.declare_group(GroupSettings(name, "billing"))
    seen: list[tuple[str, str]] = []

    async def flaky(request: web.BaseRequest) -> web.StreamResponse:
        seen.append((request.headers["ce-id"], request.headers["x-weft-delivery"]))
        if request.headers["ce-id"] == "bad":
            return web.Response(status=422, text="no such customer")
        return web.Response(status=500 if request.headers["x-weft-delivery"] == "1" else 200)

    publisher = EventPublisher(broker, topics, source="/shop")
    async with agent(flaky) as client:
        delivery = EventDelivery(client, time_limit=LIMIT)
        subscriber = Subscriber(broker, "orders", spec, "billing", delivery, dead_letters=publisher)
        running = asyncio.create_task(subscriber.run())
        await publisher.publish("orders", id="bad")
        await publisher.publish("orders", id="good")

        async def done() -> bool:
            return ("good", "2") in seen and (await broker.topic_stats("dead-letters")).messages == 1

        async with asyncio.timeout(LIMIT):
            await until(done)
        await subscriber.drained(LIMIT)
        await running
    assert sorted(seen) == [("bad", "1"), ("good", "1"), ("good", "2")]
    [dead] = await (await broker.group_consumer("dead-letters", "billing")).pull(2, wait=0)
    assert "no%20such%20customer" in dead.message.headers["ce-weftreason"]
    await broker.aclose()


class Desk:
    """A queue, a worker that posts its tasks to an agent, and a client."""

    def __init__(self, client: TaskClient) -> None:
        self.client = client

    async def ended(self, task: Task) -> Task:
        """The task when it has ended."""
        async with asyncio.timeout(LIMIT):
            ended = await self.client.wait(task.id, LIMIT)
        assert ended.state.terminal
        return ended

    async def done(self, payload: Any, **options: Any) -> Task:
        """What becomes of a task."""
        return await self.ended((await self.client.submit("work", payload, **options)).task)


@asynccontextmanager
async def desk(
    client: AgentClient,
    *,
    lease_seconds: float = LIMIT,
    leases: LeaseServer | None = None,
    tracer: Tracer = NO_TRACER,
) -> AsyncIterator[Desk]:
    broker, store = MemoryBroker(), MemoryStore()
    await broker.declare_queue(QueueSettings("work"))
    spec = QueueSpec(max_deliveries=2, backoff=Backoff(initial=0.01))

    async def queues(name: str) -> QueueSpec:
        return spec

    async with leases or LeaseServer() as server:
        delivery = TaskDelivery(client, server, lease_seconds=lease_seconds, tracer=tracer)
        worker = await Worker.open(store, broker, "work", spec, delivery, name="summarizer.s-1")
        running = asyncio.create_task(worker.run())
        try:
            yield Desk(await TaskClient.open(store, broker, queues, submitter="test"))
        finally:
            await worker.drained(1.0)
            await running
            await worker.aclose()
    await store.close()
    await broker.aclose()


async def test_an_agent_is_posted_a_task_and_answers_with_the_result() -> None:
    notebook = Notebook(200, {"content-type": "application/json"}, '{"sum": 3}')
    async with agent(notebook) as client, desk(client) as work:
        task = await work.done(
            {"add": [1, 2]},
            deadline=time.time() + 100,
            headers={
                "traceparent": TRACE,
                "x-weft-context": "chat-1",
                "x-weft-caller": "spiffe://weft.local/agent/boss/b-1",
                "transfer-encoding": "chunked",
            },
        )
    assert (task.state, task.result) == (TaskState.SUCCEEDED, {"sum": 3})
    [(request, headers, body)] = notebook.requests
    assert (request, json.loads(body)) == ("POST /tasks", {"add": [1, 2]})
    assert headers["content-type"] == "application/json"
    assert (headers["x-weft-task"], headers["x-weft-attempt"]) == (task.id, "1")
    assert headers["x-weft-lease-seconds"] == f"{LIMIT:g}"
    assert abs(int(headers["x-weft-deadline"]) / 1000 - (task.deadline or 0)) < 0.01
    assert (headers["traceparent"], headers["x-weft-context"]) == (TRACE, "chat-1")
    assert not headers.keys() & {"x-weft-caller", "transfer-encoding"}


async def test_what_is_delivered_of_a_sampled_trace_has_spans_and_the_agent_goes_on_below_them() -> None:
    notebook = Notebook(500, {}, "no luck")
    async with span_collector() as receiver:
        endpoint = OtlpEndpoint(receiver.url, {})
        tracer = Tracer(TracingSettings(resource={"service.name": "worker"}), endpoint.send, told_of)
        async with agent(notebook) as client, desk(client, tracer=tracer) as work:
            task = await work.done({}, headers={"traceparent": TRACE})
            with pytest.raises(AgentFailed):
                await EventDelivery(client, time_limit=LIMIT, tracer=tracer)(RECEIVED)
        await tracer.aclose()
        await endpoint.aclose()
    assert task.error is not None
    *attempts, delivery = receiver.spans
    assert [each.attributes["weft.attempt"] for each in receiver.spans] == [1, 2, 2]
    assert [each.name for each in receiver.spans] == [
        "process work",
        "process work",
        "process orders.created",
    ]
    assert {(each.trace, each.parent) for each in receiver.spans} == {(TRACE[3:35], TRACE[36:52])}
    assert {each.attributes["weft.task"] for each in attempts} == {task.id}
    assert {(each.kind, each.failed, each.message) for each in receiver.spans} == {
        ("consumer", True, f"POST /{path}: the agent answered 500: no luck") for path in ("tasks", "events")
    }
    assert delivery.resource == {"service.name": "worker"}
    told = [headers["traceparent"] for _, headers, _ in notebook.requests]
    assert told == [f"00-{each.trace}-{each.id}-01" for each in receiver.spans]


@pytest.mark.parametrize(
    ("answer", "code", "attempts"),
    [
        ((500, {}, "no luck"), "agent-failed", 2),
        ((408, {}, "no luck"), "agent-failed", 2),
        ((422, {}, "no luck"), "invalid-request", 1),
        ((200, {"content-type": "application/json"}, "{no luck"), "invalid-request", 1),
        ((200, {"content-type": "image/png"}, "no luck"), "invalid-request", 1),
        ((200, {"content-type": "application/json"}, '"' + "x" * 1_000_000 + '"'), "invalid-request", 1),
    ],
)
async def test_an_answer_that_is_no_result_is_a_failure(
    answer: tuple[int, dict[str, str], str], code: str, attempts: int
) -> None:
    async with agent(Notebook(*answer)) as client, desk(client) as work:
        task = await work.done({})
    assert task.error is not None
    assert (task.state, task.error.code, task.attempts) == (TaskState.FAILED, code, attempts)


async def test_an_agent_that_is_busy_is_asked_more_often_than_one_that_fails() -> None:
    asked = 0

    async def busy(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked < 3:
            return web.Response(status=429, headers={"retry-after": "1"})
        return web.Response(text="done")

    async with agent(busy) as client, desk(client) as work:
        task = await work.done({})
    assert (task.state, task.result, task.attempts) == (TaskState.SUCCEEDED, "done", 3)


async def tell(lease: str, action: str, document: Any = None) -> int:
    """What the lease answers."""
    async with aiohttp.ClientSession() as session, session.post(f"{lease}/{action}", json=document) as answer:
        return answer.status


class Background:
    """Accepts tasks, and has a coroutine work on them."""

    def __init__(self, work: Callable[[str, int], Awaitable[None]]) -> None:
        self._work = work
        self.running: list[asyncio.Task[None]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        lease, attempt = request.headers["x-weft-lease"], int(request.headers["x-weft-attempt"])
        await request.read()

        async def work() -> None:
            await self._work(lease, attempt)

        self.running.append(asyncio.create_task(work()))
        return web.Response(status=202)


async def test_a_task_that_was_accepted_goes_on_in_the_background_until_it_is_completed() -> None:
    statuses: list[int] = []

    async def work(lease: str, attempt: int) -> None:
        statuses.append(await tell(lease, "progress", {"fraction": 0.5, "message": "halfway"}))
        statuses.append(await tell(lease, "partial", {"draft": "é"}))
        statuses.append(await tell(lease, "extend"))
        statuses.append(await tell(lease, "complete", {"text": "done"}))
        statuses.append(await tell(lease, "extend"))

    background = Background(work)
    async with agent(background) as client, desk(client) as work_desk:
        submitted = (await work_desk.client.submit("work", {})).task
        async with asyncio.timeout(LIMIT), work_desk.client.follow(submitted.id) as news:
            told = [each.event.data async for each in news if each.event is not None]
        task = await work_desk.ended(submitted)
        await asyncio.gather(*background.running)
    assert (task.state, task.result) == (TaskState.SUCCEEDED, {"text": "done"})
    assert told == [{"fraction": 0.5, "message": "halfway"}, {"draft": "é"}]
    assert statuses == [204, 204, 204, 204, 410]


@pytest.mark.parametrize(("retry", "attempts"), [(True, 2), (False, 1)])
async def test_an_agent_says_itself_that_it_has_failed(retry: bool, attempts: int) -> None:
    async def work(lease: str, attempt: int) -> None:
        await tell(lease, "fail", {"detail": "the model is gone", "retry": retry})

    background = Background(work)
    async with agent(background) as client, desk(client) as work_desk:
        task = await work_desk.done({})
        await asyncio.gather(*background.running)
    assert task.error is not None
    assert (task.state, task.error.detail) == (TaskState.FAILED, "the model is gone")
    assert task.attempts == attempts


async def test_an_agent_that_falls_silent_loses_its_lease_and_the_task_is_tried_again() -> None:
    late: list[int] = []

    async def work(lease: str, attempt: int) -> None:
        if attempt == 2:
            late.append(await tell(leases[0], "complete", "too late"))
            await tell(lease, "complete", "in time")
        leases.append(lease)

    leases: list[str] = []
    background = Background(work)
    async with agent(background) as client, desk(client, lease_seconds=0.1) as work_desk:
        task = await work_desk.done({})
        await asyncio.gather(*background.running)
    assert (task.result, task.attempts, late) == ("in time", 2, [410])


async def test_a_cancelled_task_cuts_the_connection_and_ends_the_lease() -> None:
    leases: list[str] = []
    gone, accepted = asyncio.Event(), asyncio.Event()

    async def work(request: web.BaseRequest) -> web.StreamResponse:
        leases.append(request.headers["x-weft-lease"])
        if await request.json() == "later":
            accepted.set()
            return web.Response(status=202)
        try:
            await asyncio.sleep(LIMIT)
        finally:
            gone.set()
        raise AssertionError("it was to be cut off")

    async with agent(work, handler_cancellation=True) as client, desk(client) as work_desk:
        for how, begun in (("now", None), ("later", accepted)):
            submitted = (await work_desk.client.submit("work", how)).task
            async with asyncio.timeout(LIMIT):
                if begun is not None:
                    await begun.wait()
                await until(lambda: _holds(lambda: len(leases) > 0))
                await work_desk.client.cancel(submitted.id)
                await (gone.wait() if begun is None else until(lambda: _gone(leases[0])))
            assert await tell(leases.pop(), "extend") == 410


async def test_a_lease_takes_only_what_it_knows_and_only_so_much() -> None:
    answers: list[tuple[str, int]] = []

    async def work(lease: str, attempt: int) -> None:
        async with aiohttp.ClientSession() as session:

            async def ask(method: str, url: str, body: Any = None, **options: Any) -> None:
                async with session.request(method, url, data=body, **options) as answer:
                    answers.append((url.replace(lease, "L"), answer.status))

            await ask("GET", f"{lease}/extend")
            await ask("POST", lease)
            await ask("POST", f"{lease}x/extend")
            await ask("POST", f"{lease}/explode")
            await ask("POST", f"{lease}/progress", b'{"fraction": 2}')
            await ask("POST", f"{lease}/progress", b'{"fraction": NaN}')
            await ask("POST", f"{lease}/fail", b'{"retry": "yes"}')
            await ask("POST", f"{lease}/complete", b"{")
            await ask("POST", f"{lease}/partial", io.BytesIO(b"x" * 2_000_000), expect100=True)
            await ask("POST", f"{lease}/partial", io.BytesIO(b"x" * 2_000_000))
            await ask("POST", f"{lease}/complete")

    background = Background(work)
    async with agent(background) as client, desk(client) as work_desk:
        task = await work_desk.done({})
        await asyncio.gather(*background.running)
    assert task.state is TaskState.SUCCEEDED
    assert answers == [
        ("L/extend", 405),
        ("L", 404),
        ("Lx/extend", 410),
        ("L/explode", 404),
        ("L/progress", 400),
        ("L/progress", 400),
        ("L/fail", 400),
        ("L/complete", 400),
        ("L/partial", 413),
        ("L/partial", 413),
        ("L/complete", 204),
    ]


async def test_what_is_no_http_gets_no_answer_from_the_lease_server() -> None:
    async with LeaseServer() as server:
        host, port = server.address.split(":")
        for garbage in (b"nonsense\r\n\r\n", b"POST /x HTTP/1.1\r\n" + b"x: " + b"y" * 40_000):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(garbage)
            async with asyncio.timeout(LIMIT):
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 4")
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


NODE_AGENT = """
const http = require('node:http');
const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', (chunk) => { body += chunk; });
  request.on('end', () => {
    if (request.url === '/events') {
      response.setHeader('x-seen', request.headers['ce-id'] + ' ' + body);
      response.writeHead(204).end();
      return;
    }
    const lease = request.headers['x-weft-lease'];
    response.writeHead(202).end();
    const done = http.request(lease + '/complete', { method: 'POST' });
    done.on('response', (answer) => answer.resume());
    done.end(JSON.stringify({ doubled: JSON.parse(body).n * 2 }));
  });
});
server.listen(Number(process.argv[2]), '127.0.0.1', () => console.log('ready'));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
async def test_an_agent_on_node_gets_events_and_tasks(tmp_path: Path) -> None:
    program = tmp_path / "agent.cjs"
    program.write_text(NODE_AGENT)
    with socket.socket() as chosen:
        chosen.bind((HOST, 0))
        port = chosen.getsockname()[1]
    node = await asyncio.create_subprocess_exec("node", str(program), str(port), stdout=subprocess.PIPE)
    try:
        assert node.stdout is not None
        async with asyncio.timeout(LIMIT):
            assert await node.stdout.readline() == b"ready\n"
        async with AgentClient(Address(HOST, port)) as client:
            await EventDelivery(client, time_limit=LIMIT)(RECEIVED)
            async with desk(client) as work:
                tasks = await asyncio.gather(*(work.done({"n": number}) for number in range(20)))
        assert [each.result for each in tasks] == [{"doubled": 2 * number} for number in range(20)]
    finally:
        node.kill()
        await node.wait()


async def _gone(lease: str) -> bool:
    return await tell(lease, "extend") == 410


async def _holds(condition: Callable[[], bool]) -> bool:
    return condition()
