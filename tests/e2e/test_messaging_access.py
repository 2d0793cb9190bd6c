"""Queues and topics in a mesh where nothing is allowed that no policy allows: who may, and who tries."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.e2e.meshes import eventually
from tests.e2e.messaging_mesh import (
    LIMIT,
    Journal,
    acting_as,
    agent,
    allow,
    api_key,
    calling,
    document,
    ended,
    manifest,
)
from tests.e2e.secured import SecuredMesh, secured_mesh

from weft import Denied, Mesh, MeshError, NotFound, Unauthenticated, Unavailable
from weft.aio.ports import reserve_port
from weft.local.messaging_control import MessagingApi
from weft.model.message_subjects import (
    TASKS_BUCKET,
    dead_stream,
    lane_consumer,
    lane_subject,
    queue_stream,
    topic_stream,
    type_group,
)
from weft.model.spiffe import SpiffeId, agent_id
from weft.store.nats import NatsStore
from weft.store.nats_accounts import MEMBER_API
from weft.store.nats_wire import stream_name, subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUEUES = {"work": False, "sealed": True}
TOPICS = {"orders": False, "private": True}
RIGHTS = (
    *(allow(f"scribe-{each}", "scribe", "consume", queue=each) for each in QUEUES),
    *(allow(f"scribe-{each}", "scribe", "subscribe", topic=each) for each in TOPICS),
    *(allow(f"front-{each}", "front", "submit", queue=each) for each in QUEUES),
    *(allow(f"front-{each}", "front", "publish", topic=each) for each in TOPICS),
    *(allow(f"{each}-gate", each, type="public") for each in ("front", "intern")),
    allow("gate-work", "public", "submit", queue="work"),
)
SCRIBE_WORKS = allow("scribe-work", "scribe", "consume", queue="work")
SCRIBE_HEARS = allow("scribe-orders", "scribe", "subscribe", topic="orders")
INTERN_SUBMITS = allow("intern-work", "intern", "submit", queue="work")


class ClosedMesh:
    """The mesh, and those that act in it: `scribe` works, `front` submits, `intern` may nothing."""

    def __init__(self, mesh: SecuredMesh, journal: Journal, members: dict[str, Mesh], outside: str) -> None:
        self.mesh = mesh
        self.messages = MessagingApi(mesh.api)
        self.journal = journal
        self.front = members["front"]
        self.intern = members["intern"]
        self.outside = outside

    def identity(self, agent_type: str) -> SpiffeId:
        """The identity of an agent's only instance."""
        return agent_id("weft.local", agent_type, f"{agent_type}-1")

    async def nats(self, ends: AsyncExitStack, agent_type: str) -> NatsStore:
        """A connection to NATS with an agent's certificate and key, until `ends`."""
        credentials = self.mesh.credentials(f"{agent_type}-1")
        return await ends.enter_async_context(self.mesh.nats(credentials, self.identity(agent_type)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def closed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClosedMesh]:
    directory = tmp_path_factory.mktemp("closed")
    journal = Journal(directory / "journal")
    with reserve_port("127.0.0.1") as reserved:
        port = reserved.port
    resources = manifest(
        document("AccessPolicy", "closed", default="deny"),
        *RIGHTS,
        *(
            document("Queue", name, encrypted=sealed, visibilityTimeout="2s")
            for name, sealed in QUEUES.items()
        ),
        *(
            document("Topic", name, encrypted=sealed, visibilityTimeout="2s")
            for name, sealed in TOPICS.items()
        ),
        document("Gateway", "public", port=port),
        agent("scribe", "scribe.py", journal.file, *QUEUES, "--", *TOPICS),
        agent("front", "porter.py", journal.file, directory),
        agent("intern", "porter.py", journal.file, directory),
    )
    async with secured_mesh(resources) as mesh, AsyncExitStack() as ends:
        members = {
            each: await ends.enter_async_context(acting_as(mesh.surroundings(each)))
            for each in ("front", "intern")
        }
        yield ClosedMesh(mesh, journal, members, f"http://127.0.0.1:{port}")


def _everything(mesh: Mesh) -> dict[str, Callable[[], Awaitable[Any]]]:
    """What somebody can try by way of the SDK."""

    async def consume() -> None:
        consumer = await (await mesh.membership()).broker.queue_consumer("work")
        try:
            await consumer.pull(1, wait=1.0)
        finally:
            await consumer.aclose()

    async def subscribe() -> None:
        await (await mesh.membership()).directory.subscribe("orders", every_instance=False)

    async def pull_for_others() -> None:
        consumer = await (await mesh.membership()).broker.group_consumer("orders", type_group("scribe"))
        try:
            await consumer.pull(1, wait=1.0)
        finally:
            await consumer.aclose()

    return {
        "submit": lambda: mesh.submit("work", number=0),
        "publish": lambda: mesh.publish("orders", 0),
        "consume": consume,
        "subscribe": subscribe,
        "pull for others": pull_for_others,
    }


async def _refused(attempts: dict[str, Callable[[], Awaitable[Any]]]) -> set[str]:
    """Which of the attempts are denied; the others must succeed."""
    found = set()
    for name, attempt in attempts.items():
        try:
            await attempt()
        except Denied:
            found.add(name)
    return found


async def test_agents_may_do_what_a_policy_says_and_nothing_else(closed: ClosedMesh) -> None:
    task = await closed.front.submit("work", number=1)
    assert await task.result(LIMIT) == {"number": 1, "attempt": 1}
    await closed.front.publish("orders.new", 1)
    await closed.journal.has(lambda journal: journal.of("event") == [["scribe", "1", "scribe-1"]])
    assert await _refused(_everything(closed.intern)) == {*_everything(closed.intern)}
    assert await _refused(_everything(closed.front)) == {"consume", "subscribe", "pull for others"}
    with pytest.raises((Denied, NotFound)):
        await closed.intern.task(task.id).status()
    assert (await closed.messages.queue("work"))["dead"] == 0


async def test_callers_from_inside_are_bound_by_the_policies_at_a_gateway_too(closed: ClosedMesh) -> None:
    answers = {}
    for agent_type in ("front", "intern"):
        proxy = closed.mesh.surroundings(agent_type)["WEFT_PROXY"]
        async with httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=LIMIT) as http:
            submitted = await http.post(
                "http://public.mesh/v1/tasks",
                json={"queue": "work", "payload": {"number": 2}},
                headers={"prefer": "wait=20"},
            )
            published = await http.post("http://public.mesh/v1/topics/orders", json=2)
            answers[agent_type] = submitted.status_code, published.status_code
    # The gateway itself may not publish, whoever asks it to.
    assert answers == {"front": (200, 403), "intern": (403, 403)}
    caller = await api_key(closed.mesh, "public", "shop")
    async with calling(closed.outside, caller) as outside:

        async def known() -> bool:
            return (await outside.http.get("/v1/webhook-secret")).status_code == 200

        await eventually(known, lambda: "the gateway never knew the key")
        refused = await outside.http.post("/v1/tasks", json={"queue": "sealed", "payload": {}})
        assert (refused.status_code, refused.headers["x-weft-error"]) == (403, "denied")
        assert (await outside.ended(await outside.submit("work", {"number": 3})))["state"] == "succeeded"


async def test_rights_that_come_and_go_while_all_are_at_work_lose_no_task_and_no_event(
    closed: ClosedMesh,
) -> None:
    numbers = range(100, 300)
    halfway = asyncio.Event()

    async def submit() -> list[str]:
        ids = []
        for number in numbers:
            ids.append((await closed.front.submit("work", number=number)).id)
            await closed.front.publish("orders.new", number)
            if number == numbers[len(numbers) // 4]:
                halfway.set()
        return ids

    submitting = asyncio.create_task(submit())
    await halfway.wait()
    for name in ("scribe-work", "scribe-orders"):
        await closed.mesh.api.delete("accesspolicies", name)
    await closed.mesh.apply(INTERN_SUBMITS)
    await _may(closed.intern, "submit")
    ids = await submitting
    late = await closed.front.submit("work", number=300)
    await closed.mesh.apply(manifest(SCRIBE_WORKS, SCRIBE_HEARS))
    await late.result(LIMIT)
    ends = [await ended(closed.messages, each) for each in ids]
    assert {(each["state"], each["result"]["number"]) for each in ends} == {
        ("succeeded", number) for number in numbers
    }
    wanted = {str(each) for each in numbers}
    await closed.journal.has(lambda journal: wanted <= {*journal.counts("event", 1)})
    await closed.mesh.api.delete("accesspolicies", "intern-work")
    await _may_not(closed.intern, "submit")


async def _may(mesh: Mesh, what: str) -> None:
    async def permitted() -> bool:
        try:
            return not await _refused({what: _everything(mesh)[what]})
        except Unavailable:
            return False  # the connection with the old rights is being cut just now

    await eventually(permitted, lambda: f"{what} is still denied")


async def _may_not(mesh: Mesh, what: str) -> None:
    async def denied() -> bool:
        try:
            return bool(await _refused({what: _everything(mesh)[what]}))
        except Unavailable:
            return False  # likewise

    await eventually(denied, lambda: f"{what} is still permitted")


async def test_a_stolen_certificate_opens_in_nats_what_its_agent_may_and_no_more(closed: ClosedMesh) -> None:
    victim = await closed.front.submit("work", number=4)
    secret = await closed.front.submit("sealed", number=5)
    await victim.result(LIMIT)
    record = f"{MEMBER_API}.DIRECT.GET.{stream_name(TASKS_BUCKET)}"
    instances = subject("instances", "scribe.scribe-1")
    attacks = {
        "pull from a queue": f"{MEMBER_API}.CONSUMER.MSG.NEXT.{queue_stream('work')}.{lane_consumer(1)}",
        "pull from another's group": (
            f"{MEMBER_API}.CONSUMER.MSG.NEXT.{topic_stream('orders')}.{type_group('scribe')}"
        ),
        "acknowledge another's task": (
            f"$JS.ACK.{queue_stream('work')}.{lane_consumer(1)}.1.1.1.1700000000000000000.0"
        ),
        "read a record": f"{record}.{subject(TASKS_BUCKET, victim.id)}",
        "read a record of an encrypted queue": f"{record}.{subject(TASKS_BUCKET, secret.id)}",
        "read any record": record,
        "write a record": subject(TASKS_BUCKET, victim.id),
        "put a task into a queue": lane_subject("work", 0),
        "put a webhook into the queue of webhooks": lane_subject("weft-webhooks", 0),
        "read a queue": f"{MEMBER_API}.STREAM.MSG.GET.{queue_stream('work')}",
        "read dead letters": f"{MEMBER_API}.STREAM.MSG.GET.{dead_stream('work')}",
        "make a consumer": f"{MEMBER_API}.CONSUMER.CREATE.{queue_stream('work')}.mine",
        "make a consumer past the accounts": f"$JS.API.CONSUMER.CREATE.{queue_stream('work')}.mine",
        "purge a queue": f"{MEMBER_API}.STREAM.PURGE.{queue_stream('work')}",
        "delete a stream": f"$JS.API.STREAM.DELETE.{topic_stream('orders')}",
        "forge a registration": instances,
        "forge one of the same name in another type": subject("instances", "front.intern-1"),
        "forge the audit": "audit.agent.scribe.scribe-1",
        "cancel a task": f"signals.member.cancellations.{victim.id}",
        "publish": "topics.orders.0",
    }
    own = "topics.private.0.new"
    async with AsyncExitStack() as ends:
        intern, front = await closed.nats(ends, "intern"), await closed.nats(ends, "front")
        permitted = {
            "intern": {name for name, each in attacks.items() if await _lets(intern, each)},
            "front": {name for name, each in attacks.items() if await _lets(front, each)},
        }
        assert permitted["intern"] == set()
        # Whoever may submit to a queue has to do with its records, of which ids are told to nobody else; it
        # takes nothing out, though.
        assert permitted["front"] <= {
            *("read a record", "read a record of an encrypted queue", "write a record"),
            *("put a task into a queue", "put a webhook into the queue of webhooks"),
            *("cancel a task", "publish"),
        }
        assert await _lets(front, own)
        for store, name in ((intern, "intern"), (front, "front")):
            for heard in (">", "_INBOX.>", "signals.>", "$KV.>", "queues.>", "$JS.ACK.>", "$SYS.>"):
                with pytest.raises(Denied):
                    await store.connection.subscribe(f"hear {heard} as {name}", [heard], _ignore)
    # Nor is anybody held up by what is no message of Weft's.
    later = await closed.front.submit("work", number=5)
    assert await later.result(LIMIT) == {"number": 5, "attempt": 1}
    await secret.result(LIMIT)


async def _lets(store: NatsStore, where: str) -> bool:
    """Whether NATS lets a member send there, whatever becomes of it."""
    try:
        await store.connection.request("attack", where, b"")
    except Denied:
        return False
    except Unavailable:  # nobody takes it
        return True
    return True


async def _ignore(_: object) -> None:
    pass


async def test_what_is_encrypted_is_read_by_its_workers_alone_and_outlives_its_keys(
    closed: ClosedMesh,
) -> None:
    marker, plain = secrets.token_hex(16), secrets.token_hex(16)
    waiting = [await closed.front.submit("sealed", number=6, gate="", delay=3.0, **_note(marker))]
    open_one = await closed.front.submit("work", number=7, delay=3.0, **_note(plain))
    await closed.front.publish("private", {"note": marker})
    for kind, name in (("queues", "sealed"), ("topics", "private")):
        await closed.mesh.api.ask("POST", f"/v1/{kind}/{name}/rotate-keys")
    waiting.append(await closed.front.submit("sealed", number=8, delay=1.5, **_note(marker)))
    await closed.front.publish("private", {"note": marker})
    peeked = str(await closed.messages.peek("sealed", dead=False, limit=100))
    assert waiting[0].id in peeked
    assert marker not in peeked
    assert plain in str(await closed.messages.peek("work", dead=False, limit=100))
    found = await asyncio.to_thread(_holding, closed.mesh.home / "nats", marker.encode(), plain.encode())
    assert found == {plain.encode()}
    for each in (closed.front, closed.intern):
        ask = (await each.membership()).directory.ask
        for channel in ("queues/sealed", "topics/private"):
            with pytest.raises(Denied):
                await ask("GET", f"/v1/{channel}/consuming-keys", None)
    for task in (*waiting, open_one):
        assert (await task.result(LIMIT))["attempt"] == 1
    await closed.journal.has(lambda journal: str(journal.of("event")).count(marker) == 2)


def _note(text: str) -> dict[str, Any]:
    return {"note": text}


def _holding(directory: Path, *texts: bytes) -> set[bytes]:
    """Which of `texts` stand in the files below a directory."""
    contents = [each.read_bytes() for each in directory.rglob("*") if each.is_file()]
    return {text for text in texts if any(text in each for each in contents)}


async def test_a_revoked_identity_is_cut_off_from_queues(closed: ClosedMesh) -> None:
    await closed.mesh.apply(INTERN_SUBMITS)
    await _may(closed.intern, "submit")
    revoked = str(closed.identity("intern"))
    async with AsyncExitStack() as ends:
        store = await closed.nats(ends, "intern")
        assert await _lets(store, lane_subject("work", 2))
        await closed.mesh.api.revoke(revoked, "it was stolen")

        async def cut_off() -> bool:
            return not store.connected

        await eventually(cut_off, lambda: "a revoked identity is still connected to NATS")
        with pytest.raises(Unauthenticated):
            await (await closed.intern.membership()).directory.ask("GET", "/v1/broker", None)
        with pytest.raises(MeshError):
            await closed.nats(ends, "intern")
        assert not store.connected
