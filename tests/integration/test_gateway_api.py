"""The gateway's API over real HTTP: tasks, their events, topics, and what is asked about direct calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio
from tests.gateways import INSIDER, LIMIT, QUEUE, SIGNER, TOPIC, GatewayScene, abandoned, ended, gateway_scene

from weft.gateway import body_limit, stream
from weft.gateway.draining import Draining
from weft.gateway.submission import TaskDocument
from weft.messaging.broker import ALL, GroupSettings, QueueSettings, TopicSettings
from weft.messaging.brokers.memory import MemoryBroker
from weft.model.gateway import GatewaySpec, Rate
from weft.model.topic import DEAD_LETTERS
from weft.store.memory import MemoryStore
from weft.tasks.attempt import TaskRun


class Front(NamedTuple):
    """A gateway and what is behind it."""

    scene: GatewayScene
    client: httpx.AsyncClient
    store: MemoryStore
    broker: MemoryBroker
    draining: Draining


@pytest_asyncio.fixture
async def front() -> AsyncIterator[Front]:
    store, broker, draining = MemoryStore(), MemoryBroker(), Draining()
    async with gateway_scene() as scene:
        await scene.declare(broker)
        client = await scene.gateway(store, broker, draining=draining)
        yield Front(scene, client, store, broker, draining)
    await broker.aclose()
    await store.close()


@pytest.fixture
def alice(front: Front) -> Mapping[str, str]:
    return front.scene.key("alice")


async def _double(run: TaskRun) -> Any:
    await run.progress(0.5, "halfway")
    await run.partial({"so": "far"})
    return {"twice": 2 * json.loads(run.payload)["n"]}


async def _forever(run: TaskRun) -> Any:
    await asyncio.Event().wait()


def _task(**members: Any) -> dict[str, Any]:
    return {"queue": QUEUE, "payload": {"n": 21}, **members}


async def test_a_task_is_stored_its_location_told_and_its_result_found_there(
    front: Front, alice: Mapping[str, str]
) -> None:
    await front.scene.worker(front.store, front.broker, _double)
    answer = await front.client.post("/v1/tasks", json=_task(labels={"a": "b"}), headers=alice)
    assert answer.status_code == 202
    assert TaskDocument.model_validate(answer.json()).submitter == "public/key:alice"
    task = await ended(front.client, answer.headers["location"], alice)
    assert TaskDocument.model_validate(task).labels == {"a": "b"}
    assert task["result"] == {"twice": 42}


async def test_a_caller_that_prefers_to_wait_gets_the_result_itself_if_it_is_there_in_time(
    front: Front, alice: Mapping[str, str]
) -> None:
    preferring = {**alice, "prefer": "respond-async, wait=1"}
    late = await front.client.post("/v1/tasks", json=_task(), headers=preferring)
    assert late.status_code == 202
    assert late.json()["state"] == "queued"
    assert late.headers["preference-applied"] == "wait=1"
    await front.scene.worker(front.store, front.broker, _double)
    front.scene.spec = GatewaySpec(max_wait=20)
    preferring["prefer"] = "wait=600"
    answer = await front.client.post("/v1/tasks", json=_task(), headers=preferring)
    assert answer.status_code == 200
    assert answer.json()["result"] == {"twice": 42}
    assert answer.headers["preference-applied"] == "wait=20"


async def test_what_is_submitted_again_with_its_key_is_the_same_task(
    front: Front, alice: Mapping[str, str]
) -> None:
    keyed = {**alice, "idempotency-key": "order-7"}
    first = await front.client.post("/v1/tasks", json=_task(), headers=keyed)
    again = await front.client.post("/v1/tasks", json=_task(idempotencyKey="order-7"), headers=alice)
    assert again.json()["id"] == first.json()["id"]
    other = await front.client.post("/v1/tasks", json=_task(payload=1), headers=keyed)
    assert other.status_code == 409
    both = await front.client.post("/v1/tasks", json=_task(idempotencyKey="x"), headers=keyed)
    assert both.status_code == 400
    bob = await front.client.post(
        "/v1/tasks", json=_task(), headers={**front.scene.key("bob"), **keyed_only(keyed)}
    )
    assert bob.json()["id"] != first.json()["id"]


def keyed_only(headers: Mapping[str, str]) -> dict[str, str]:
    """The idempotency key alone."""
    return {"idempotency-key": headers["idempotency-key"]}


async def test_each_task_of_a_batch_is_taken_or_refused_for_itself(front: Front) -> None:
    carol = front.scene.key("carol", queues=(QUEUE,), rate=Rate(requests=3, per=3600))
    tasks = [_task(), _task(queue="other"), _task(), _task()]
    headers = {**carol, "idempotency-key": "all"}
    answer = await front.client.post("/v1/tasks/batch", json={"tasks": tasks}, headers=headers)
    items = answer.json()["tasks"]
    assert [each["status"] for each in items] == [202, 403, 202, 429]
    assert items[1]["problem"]["type"] == "urn:weft:problem:denied"
    assert items[0]["task"]["id"] != items[2]["task"]["id"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"queue": "research", "payload": NaN}', 400),
        (b'{"queue": "research", "payload": 1e999}', 400),
        (b'{"queue": "research", "queue": "other", "payload": 1}', 400),
        (b'{"queue": "research", "payload": "\xff"}', 400),
        (b"[" * 100_000, 400),
        (b'{"queue": "research"}', 422),
        (b'{"queue": "research", "payload": 1, "surprise": 1}', 422),
        (b'{"queue": "research", "payload": 1, "priority": "urgent"}', 422),
        (b'{"queue": "research", "payload": 1, "delay": "soon"}', 422),
        (b'{"queue": "research", "payload": 1, "notBefore": 1700000000}', 422),
        (b'{"queue": "research", "payload": 1, "deadline": "2026-11-21T12:00:00"}', 422),
        (b'{"queue": "research", "payload": 1, "webhook": "http://127.0.0.1/"}', 400),
        (b'{"queue": "nowhere", "payload": 1}', 404),
        (b'{"queue": "weft-webhooks", "payload": 1}', 404),
    ],
)
async def test_what_is_no_task_is_refused_with_a_problem(
    front: Front, alice: Mapping[str, str], body: bytes, status: int
) -> None:
    headers = {**alice, "content-type": "application/json"}
    answer = await front.client.post("/v1/tasks", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:weft:problem:{answer.headers['x-weft-error']}"


async def test_a_body_beyond_the_limit_is_refused_however_it_comes_and_one_that_does_not_come(
    front: Front, alice: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    front.scene.spec = GatewaySpec(max_body_bytes=2048)
    body = json.dumps(_task(payload="x" * 4096)).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 512):
            yield body[start : start + 512]

    headers = {**alice, "content-type": "application/json"}
    for content in (body, pieces()):
        answer = await front.client.post("/v1/tasks", content=content, headers=headers)
        assert answer.status_code == 413
    reader, writer = await asyncio.open_connection(front.client.base_url.host, front.client.base_url.port)
    monkeypatch.setattr(body_limit, "BODY_TIMEOUT", 0.2)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"POST /v1/tasks HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n{head}\r\n{{".encode())
    async with asyncio.timeout(LIMIT):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()


async def test_nobody_sees_the_tasks_of_others_but_who_may(front: Front, alice: Mapping[str, str]) -> None:
    location = (await front.client.post("/v1/tasks", json=_task(), headers=alice)).headers["location"]
    bob, auditor = front.scene.key("bob"), front.scene.key("auditor", sees_all=True)
    elsewhere = front.scene.key("elsewhere", sees_all=True, queues=("other",))
    missing = f"/v1/tasks/{QUEUE}.{'0' * 26}"
    for stranger in (bob, elsewhere):
        refusals = [
            await front.client.get(location, headers=stranger),
            await front.client.delete(location, headers=stranger),
            await front.client.post(f"{location}/cancel", headers=stranger),
            await front.client.get(f"{location}/events", headers=stranger),
            await front.client.get(missing, headers=stranger),
        ]
        texts = {each.json()["detail"].partition("'")[2].partition("'")[2] for each in refusals}
        assert [each.status_code for each in refusals] == [404] * 5
        assert len(texts) == 1  # it cannot be told whether there is such a task
    listed = [
        (await front.client.get("/v1/tasks", params={"queue": QUEUE}, headers=each)).json()["tasks"]
        for each in (alice, bob, auditor)
    ]
    assert [len(each) for each in listed] == [1, 0, 1]
    assert (await front.client.get(location, headers=auditor)).status_code == 200
    assert (await front.client.delete(location, headers=auditor)).json()["state"] == "cancelled"


async def test_members_of_the_mesh_need_no_key_and_are_bound_by_its_policies(front: Front) -> None:
    inside = {"x-weft-caller": INSIDER}
    assert (await front.client.post("/v1/tasks", json=_task(), headers=inside)).status_code == 403
    front.scene.allowed.add(("submit", QUEUE))
    answer = await front.client.post("/v1/tasks", json=_task(), headers=inside)
    assert answer.json()["submitter"] == INSIDER
    assert (await front.client.get(answer.headers["location"], headers=inside)).status_code == 200
    outside = {**inside, "x-weft-door": "outside"}
    assert (await front.client.post("/v1/tasks", json=_task(), headers=outside)).status_code == 401
    alice = await front.client.post("/v1/tasks", json=_task(), headers=front.scene.key("alice"))
    location = alice.headers["location"]
    assert (await front.client.get(location, headers=inside)).status_code == 404
    front.scene.allowed.add(("consume", QUEUE))
    assert (await front.client.get(location, headers=inside)).status_code == 200


async def test_who_asks_too_often_is_told_how_long_to_wait(front: Front) -> None:
    eager = front.scene.key("eager", rate=Rate(requests=4, per=3600))
    front.scene.share = 2  # so this instance grants half of it
    answers = [await front.client.get(f"/v1/tasks?queue={QUEUE}", headers=eager) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"default";q=4;w=3600'
    assert answers[0].headers["ratelimit"].startswith('"default";r=1;t=')
    assert answers[2].headers["x-weft-error"] == "rate-limited"
    assert 0 < int(answers[2].headers["retry-after"]) <= 1800
    direct = await front.client.post("/authorize/v1/agents/editor", headers=eager)
    assert direct.status_code == 429
    assert "retry-after" in direct.headers


async def test_a_full_queue_is_told_with_when_to_come_again(front: Front, alice: Mapping[str, str]) -> None:
    await front.broker.declare_queue(QueueSettings(QUEUE, max_length=1))
    answers = [await front.client.post("/v1/tasks", json=_task(), headers=alice) for _ in range(2)]
    assert [each.status_code for each in answers] == [202, 429]
    assert answers[1].headers["x-weft-error"] == "queue-full"
    assert int(answers[1].headers["retry-after"]) >= 1


async def test_direct_calls_are_let_through_with_the_callers_name(front: Front) -> None:
    front.scene.spec = GatewaySpec(agents=("editor", "critic"))
    writer = front.scene.key("writer", agents=("editor",))
    answer = await front.client.post("/authorize/v1/agents/editor", headers=writer)
    assert (answer.status_code, answer.headers["x-weft-submitter"]) == (200, "public/key:writer")
    for path, headers, status in (
        ("/authorize/v1/agents/critic", writer, 403),
        ("/authorize/v1/agents/printer", writer, 404),
        ("/authorize/v1/agents/editor", {}, 401),
        ("/authorize/v1/agents/editor", {"x-weft-caller": INSIDER}, 401),
        ("/authorize/v1/agents/editor", {"authorization": "Basic eDp5"}, 401),
        ("/authorize/v1/agents/%65ditor", writer, 404),
        ("/authorize/v1/agents/editor%2f..%2fcritic", writer, 404),
        ("/authorize/v1/tasks", writer, 404),
    ):
        refused = await front.client.post(path, headers=headers)
        assert refused.status_code == status
        assert refused.headers["content-type"] == "application/problem+json"


async def test_what_agents_are_sent_by_a2a_is_nobodys_to_submit(
    front: Front, alice: Mapping[str, str]
) -> None:
    for queues in (None, ("a2a-editor",)):
        front.scene.spec = GatewaySpec(queues=queues)
        answer = await front.client.post("/v1/tasks", json=_task(queue="a2a-editor"), headers=alice)
        assert (answer.status_code, answer.headers["x-weft-error"]) == (404, "not-found")
        assert "at this gateway" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/tasks",
        "/Events",
        "//tasks/",
        "/%74asks",
        "/./tasks",
        "/x/../tasks",
        "/x/%2e%2e/events",
        "/x%2f..%2ftasks",
        "/../tasks",
        "/x/..;/tasks;a=b",
        "/x\\..\\tasks",
    ],
)
async def test_what_is_for_the_mesh_is_refused_in_whatever_way_its_path_is_written(
    front: Front, path: str
) -> None:
    writer = front.scene.key("writer")
    # As it stands: httpx would resolve the dots.
    target = {"target": f"/authorize/v1/agents/editor{path}".encode()}
    refused = await front.client.post("/", headers=writer, extensions=target)
    fine = await front.client.post("/authorize/v1/agents/editor/tasks/x", headers=writer)
    assert (refused.status_code, fine.status_code) == (404, 200)


async def test_what_callers_from_outside_call_a_conversation_is_nobody_elses_inside(front: Front) -> None:
    alice, bob = front.scene.key("alice"), front.scene.key("bob")
    inside = {"x-weft-caller": INSIDER}
    front.scene.allowed.add(("submit", QUEUE))

    async def called(headers: Mapping[str, str], name: str) -> str:
        answer = await front.client.post(
            "/v1/tasks", json=_task(), headers={**headers, "x-weft-context": name}
        )
        return str(answer.json()["context"])

    async def direct(headers: Mapping[str, str], name: str) -> str:
        named = {**headers, "x-weft-context": name}
        answer = await front.client.post("/authorize/v1/agents/editor", headers=named)
        return answer.headers["x-weft-context"]

    assert await called(inside, "chat-1") == "chat-1"
    names = [await called(alice, "chat-1"), await called(bob, "chat-1"), await called(alice, "chat-2")]
    assert len({*names, "chat-1", "chat-2"}) == 5
    assert [await direct(alice, "chat-1"), await direct(bob, "chat-1")] == names[:2]
    assert await called(alice, "chat-1") == names[0]
    assert await called(alice, names[1]) not in names  # nor by what it is called inside
    for name in ("", "x" * 4000, "a, b", "*.>"):
        answer = await front.client.post(
            "/authorize/v1/agents/editor", headers={**alice, "x-weft-context": name}
        )
        assert answer.status_code == 200
        assert len(answer.headers.get("x-weft-context", "")) == (34 if name else 0)


async def _events(response: httpx.Response) -> list[tuple[str, str, Any]]:
    """Name, id and data of all events to come, comments left out."""
    events = []
    async with asyncio.timeout(LIMIT):
        text = (await response.aread()).decode()
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return events


async def test_a_stream_tells_all_in_order_ends_with_the_task_and_resumes_anywhere(
    front: Front, alice: Mapping[str, str]
) -> None:
    answer = await front.client.post("/v1/tasks", json=_task(), headers=alice)
    path = f"{answer.headers['location']}/events"
    await front.scene.worker(front.store, front.broker, _double)
    async with front.client.stream("GET", path, headers=alice) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = await _events(response)
    assert [name for name, _, _ in events][-3:] == ["progress", "partial", "state"]
    assert events[-1][2]["result"] == {"twice": 42}
    for position, (_, cursor, _) in enumerate(events):
        resumed = {**alice, "last-event-id": cursor}
        async with front.client.stream("GET", path, headers=resumed) as response:
            rest = await _events(response)
        assert rest == events[position + 1 :]
    wrong = await front.client.get(path, headers={**alice, "last-event-id": "nonsense"})
    assert wrong.status_code == 400


async def test_a_silent_stream_is_kept_alive_and_ends_when_its_key_does(
    front: Front, alice: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_INTERVAL", 0.1)
    answer = await front.client.post("/v1/tasks", json=_task(), headers=alice)
    path = f"{answer.headers['location']}/events"
    async with asyncio.timeout(LIMIT), front.client.stream("GET", path, headers=alice) as response:
        lines = response.aiter_lines()
        while await anext(lines) != ": still here":
            pass
        front.scene.keys.clear()
        assert [line async for line in lines if line and not line.startswith(":")] == []


async def test_draining_ends_streams_and_waits_so_that_clients_go_on_elsewhere(
    front: Front, alice: Mapping[str, str]
) -> None:
    waiting = asyncio.create_task(
        front.client.post("/v1/tasks", json=_task(), headers={**alice, "prefer": "wait=50"})
    )
    answer = await front.client.post("/v1/tasks", json=_task(), headers=alice)
    assert (await front.client.get("/ready")).status_code == 200
    async with front.client.stream("GET", f"{answer.headers['location']}/events", headers=alice) as response:
        front.draining.begin()
        text = await response.aread()
    assert text.endswith(stream.DRAINED)
    async with asyncio.timeout(LIMIT):
        assert (await waiting).status_code == 202
    assert (await front.client.get("/health")).status_code == 200
    assert (await front.client.get("/ready")).status_code == 503


async def test_a_gateway_without_its_store_is_not_ready_and_says_why(front: Front) -> None:
    front.scene.not_ready = "NATS cannot be reached"
    answer = await front.client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "NATS cannot be reached"


async def test_what_is_told_of_a_request_that_is_all_wrong_is_not_longer_than_it(
    front: Front, alice: Mapping[str, str]
) -> None:
    wrong = {"queue": QUEUE, "payload": 1, **{f"{number}-{'x' * 500}": 1 for number in range(500)}}
    answer = await front.client.post("/v1/tasks", json=wrong, headers=alice)
    assert (answer.status_code, answer.headers["x-weft-error"]) == (422, "invalid-resource")
    assert "468 more fields are wrong" in answer.json()["detail"]
    lost = await front.client.get("/v1/" + "x" * 20_000, headers=alice)
    assert lost.status_code == 404
    assert max(len(answer.content), len(lost.content)) < 40_000


async def test_events_are_published_in_every_form_with_their_publisher_named(
    front: Front, alice: Mapping[str, str]
) -> None:
    await front.broker.declare_topic(TopicSettings(TOPIC))
    await front.broker.declare_group(GroupSettings(TOPIC, "readers", start=ALL))
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "created", "data": {"n": 1}}
    binary = {"ce-specversion": "1.0", "ce-id": "2", "ce-source": "/shop", "ce-type": "created"}
    posing = {"ce-weftsubmitter": "root", "ce-weftpublisher": "root", "ce-wefttopic": "orders"}
    posts: list[tuple[str, Any, dict[str, str]]] = [
        ("orders", json.dumps(event), {"content-type": "application/cloudevents+json"}),
        ("orders.eu", '{"n":2}', {"content-type": "application/json", **binary, **posing}),
        ("orders", json.dumps([event, event]), {"content-type": "application/cloudevents-batch+json"}),
        ("orders.created?type=made", '{"n":4}', {"content-type": "application/json"}),
    ]
    for path, content, headers in posts:
        answer = await front.client.post(f"/v1/topics/{path}", content=content, headers={**alice, **headers})
        assert answer.status_code == 202, answer.text
    consumer = await front.broker.group_consumer(TOPIC, "readers")
    deliveries = await consumer.pull(10, wait=LIMIT)
    seen = [(each.message.headers["ce-type"], each.subtopic) for each in deliveries]
    assert seen == [("created", ""), ("created", "eu"), ("created", ""), ("created", ""), ("made", "created")]
    assert {each.message.headers["ce-weftsubmitter"] for each in deliveries} == {"public/key:alice"}
    assert not any({"ce-weftpublisher", "ce-wefttopic"} & each.message.headers.keys() for each in deliveries)
    await consumer.aclose()
    for path, content, headers, status in (
        ("nowhere", "{}", {"content-type": "application/json"}, 404),
        ("orders", "<x/>", {"content-type": "application/xml"}, 400),
        ("orders", "[]", {"content-type": "application/cloudevents-batch+json"}, 400),
        ("orders", "{", {"content-type": "application/cloudevents+json"}, 400),
    ):
        answer = await front.client.post(f"/v1/topics/{path}", content=content, headers={**alice, **headers})
        assert answer.status_code == status
    confined = front.scene.key("confined", topics=("other",))
    answer = await front.client.post("/v1/topics/orders", json={}, headers=confined)
    assert answer.status_code == 403


async def test_only_topics_that_the_gateway_offers_are_published_to(
    front: Front, alice: Mapping[str, str]
) -> None:
    async def offered() -> list[str]:
        """The topics that the gateway does not refuse; the mesh has but the first of them."""
        found = []
        for topic in (TOPIC, "other", DEAD_LETTERS):
            answers = [
                await front.client.post(f"/v1/topics/{topic}", json={}, headers=each) for each in ({}, alice)
            ]
            assert {each.status_code for each in answers} <= {202, 404}
            if not any("at this gateway" in each.text for each in answers):
                found.append(topic)
        return found

    await front.broker.declare_topic(TopicSettings(TOPIC))
    front.scene.spec = GatewaySpec(anonymous=True)
    assert await offered() == [TOPIC, "other"]
    front.scene.spec = GatewaySpec(anonymous=True, topics=("other", DEAD_LETTERS))
    assert await offered() == ["other", DEAD_LETTERS]


async def test_a_client_that_goes_away_is_waited_for_no_more_but_its_task_goes_on(
    front: Front, alice: Mapping[str, str]
) -> None:
    await front.scene.worker(front.store, front.broker, _forever)
    await abandoned(front.client, front.scene.gateways[0], alice)
    [task] = (await front.client.get(f"/v1/tasks?queue={QUEUE}", headers=alice)).json()["tasks"]
    assert task["state"] in {"queued", "running"}
    cancelled = await front.client.post(f"/v1/tasks/{task['id']}/cancel", headers=alice)
    assert cancelled.json()["state"] == "cancelled"


async def test_a_caller_learns_its_own_webhook_secret_and_an_anonymous_one_none(
    front: Front, alice: Mapping[str, str]
) -> None:
    front.scene.spec = GatewaySpec(anonymous=True)
    answer = await front.client.get("/v1/webhook-secret", headers=alice)
    assert answer.json()["secret"] == SIGNER.secret_of("public/key:alice")
    assert (await front.client.get("/v1/webhook-secret")).status_code == 403
    anonymous = await front.client.post("/v1/tasks", json=_task())
    assert anonymous.json()["submitter"] == "public/anonymous"
    hooked = await front.client.post("/v1/tasks", json=_task(webhook="https://192.0.2.1/"))
    assert hooked.status_code == 403


async def test_a_webhook_that_points_inside_is_refused_when_it_is_submitted(
    front: Front, alice: Mapping[str, str]
) -> None:
    task = _task(webhook="https://hooks.example/")
    for address, status in (("10.0.0.1", 400), ("93.184.216.34", 202)):
        front.scene.addresses["hooks.example"] = [address]
        answer = await front.client.post("/v1/tasks", json=task, headers=alice)
        assert answer.status_code == status
        assert address not in answer.text


async def test_the_api_describes_itself(front: Front) -> None:
    document = (await front.client.get("/openapi.json")).json()
    assert {"/v1/tasks", "/v1/tasks/batch", "/v1/tasks/{task_id}/events", "/v1/topics/{topic}"} <= set(
        document["paths"]
    )
