"""Webhooks: sent, signed and tried again over real connections, and not to where they must not go."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry
from tests.gateways import LIMIT, QUEUE, SIGNER, GatewayScene, gateway_scene
from tests.pki import Pki
from tests.receivers import (
    HOST,
    Receiver,
    drip,
    endless_body,
    flood,
    garbage,
    hang,
    receiver,
    status,
)

from weft.aio.poll import until
from weft.errors import InvalidRequest, MeshError, TimedOut, Unavailable
from weft.gateway import webhook_delivery
from weft.gateway.webhook_delivery import WebhookDelivery
from weft.gateway.webhook_request import WebhookClient, webhook_trust
from weft.messaging.brokers.memory import MemoryBroker
from weft.messaging.message import Message
from weft.model.gateway import WebhookSpec
from weft.model.message_subjects import WEBHOOK_QUEUE
from weft.store.memory import MemoryStore
from weft.tasks.attempt import TaskRun
from weft.tasks.client import TaskClient

LOOPBACK = WebhookSpec(allow_http=True, allow_networks=("127.0.0.0/8",), timeout=1.0, max_attempts=3)
ALICE = "public/key:alice"


@dataclass
class Sending:
    """A mesh whose tasks end at once, and a gateway that tells of it."""

    scene: GatewayScene
    broker: MemoryBroker
    tasks: TaskClient
    rules: WebhookSpec
    metrics: CollectorRegistry

    async def end(self, url: str, payload: Any = 1) -> str:
        """Have a task end whose webhook that is; its id."""
        submitted = await self.tasks.submit(QUEUE, payload, webhook=url, submitter=ALICE)
        return submitted.task.id

    async def dead_letter(self) -> str:
        """The reason of the first dead letter of the queue of webhooks."""

        async def there() -> bool:
            return bool(await self.broker.peek(WEBHOOK_QUEUE, limit=1, dead=True))

        async with asyncio.timeout(LIMIT):
            await until(there)
        [letter] = await self.broker.peek(WEBHOOK_QUEUE, limit=2, dead=True)
        return letter.reason

    async def settled(self) -> None:
        """Return when no webhook waits or is under way."""

        async def empty() -> bool:
            stats = await self.broker.queue_stats(WEBHOOK_QUEUE)
            return not stats.ready and not stats.in_flight and not stats.delayed

        async with asyncio.timeout(LIMIT):
            await until(empty)


async def _echo(run: TaskRun) -> Any:
    return json.loads(run.payload)


@asynccontextmanager
async def _running(delivery: WebhookDelivery) -> AsyncIterator[None]:
    running = asyncio.create_task(delivery.run())
    try:
        yield
    finally:
        await delivery.drained(0)
        await running


@pytest_asyncio.fixture
async def sending() -> AsyncIterator[Sending]:
    store, broker = MemoryStore(), MemoryBroker()
    async with gateway_scene() as scene:
        await scene.declare(broker)
        tasks, metrics = await scene.tasks(store, broker), CollectorRegistry()
        state = Sending(scene, broker, tasks, LOOPBACK, metrics)
        delivery = WebhookDelivery(
            broker,
            tasks,
            "public",
            lambda: state.rules,
            SIGNER,
            WebhookClient(webhook_trust(), scene.lookup),
            backoff=lambda _attempts: 0.05,
            metrics=metrics,
        )
        await scene.worker(store, broker, _echo)
        async with _running(delivery):
            yield state
    await broker.aclose()
    await store.close()


async def _received(at: Receiver, number: int) -> None:
    async def there() -> bool:
        return len(at.received) >= number

    async with asyncio.timeout(LIMIT):
        await until(there)


async def test_the_end_of_a_task_is_posted_signed_and_again_until_it_is_taken(sending: Sending) -> None:
    async with receiver(status(500), garbage, status(204)) as hook:
        task_id = await sending.end(hook.url + "?a=b", {"n": 1})
        await _received(hook, 3)
        await sending.settled()
    assert {each.target for each in hook.received} == {"/hook?a=b"}
    assert {each.headers["webhook-id"] for each in hook.received} == {f"{task_id}-succeeded"}
    last = hook.received[-1]
    assert json.loads(last.body)["result"] == {"n": 1}
    # As Standard Webhooks says, with the secret that the submitter can ask for.
    secret = base64.b64decode(SIGNER.secret_of(ALICE).removeprefix("whsec_"))
    signed = f"{last.headers['webhook-id']}.{last.headers['webhook-timestamp']}.".encode() + last.body
    signature = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    assert last.headers["webhook-signature"] == f"v1,{signature}"
    assert sending.metrics.get_sample_value("weft_webhooks_total", {"outcome": "failed"}) == 2
    assert sending.metrics.get_sample_value("weft_webhooks_total", {"outcome": "taken"}) == 1


async def test_what_nobody_takes_is_a_dead_letter_with_its_reason(sending: Sending) -> None:
    async with receiver(status(503)) as hook:
        await sending.end(hook.url)
        assert await sending.dead_letter() == "the receiver answered with status 503 (at attempt 3)"
    assert len(hook.received) == 3


async def test_a_receiver_that_is_gone_for_good_is_not_asked_again(sending: Sending) -> None:
    async with receiver(status(410)) as hook:
        await sending.end(hook.url)
        assert "410" in await sending.dead_letter()
    assert len(hook.received) == 1


async def test_redirects_are_not_followed(sending: Sending) -> None:
    async with receiver() as secret, receiver(status(307, f"location: {secret.url}")) as hook:
        await sending.end(hook.url)
        assert "307" in await sending.dead_letter()
    assert secret.connections == 0


async def test_a_name_that_means_another_address_by_now_is_checked_anew(sending: Sending) -> None:
    async with receiver() as inside:
        url = f"http://rebinding.example:{inside.port}/"
        sending.rules = LOOPBACK.model_copy(update={"allow_networks": ()})
        sending.scene.addresses["rebinding.example"] = [HOST]
        await sending.end(url)
        assert "not public" in await sending.dead_letter()
    assert inside.connections == 0


async def test_the_connection_goes_to_the_very_address_that_was_checked() -> None:
    asked = 0

    async def changing(host: str, port: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        return [HOST] if asked == 1 else ["10.255.255.1"]

    async with receiver() as hook:
        url = f"http://changing.example:{hook.port}/"
        assert await WebhookClient(webhook_trust(), changing).post(url, LOOPBACK, {}, b"{}") == 200
    assert asked == 1
    assert hook.received[0].headers["host"] == f"changing.example:{hook.port}"


@pytest.mark.parametrize(
    ("answer", "error"), [(hang, TimedOut), (drip, TimedOut), (flood, Unavailable), (garbage, Unavailable)]
)
async def test_receivers_that_do_not_answer_as_they_should_are_cut_off(
    answer: Any, error: type[MeshError]
) -> None:
    async with asyncio.timeout(LIMIT), receiver(answer) as hook:
        with pytest.raises(error):
            await WebhookClient(webhook_trust()).post(hook.url, LOOPBACK, {}, b"{}")


async def test_of_an_answer_nothing_but_the_status_is_waited_for() -> None:
    async with asyncio.timeout(LIMIT), receiver(endless_body) as hook:
        assert await WebhookClient(webhook_trust()).post(hook.url, LOOPBACK, {}, b"{}") == 200


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as hook, receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{HOST}:{proxy.port}")
        await WebhookClient(webhook_trust()).post(hook.url, LOOPBACK, {}, b"{}")
    assert (hook.connections, proxy.connections) == (1, 0)


async def test_receivers_prove_their_names(tmp_path: Path) -> None:
    pki = Pki()
    chain, key = _server_files(pki, tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(chain, key)
    trust = ssl.create_default_context(cadata=pki.root.public_bytes(Encoding.PEM).decode())

    async def here(host: str, port: int) -> Sequence[str]:
        return [HOST]

    rules = WebhookSpec(allow_networks=("127.0.0.0/8",))
    async with receiver(tls=tls) as hook:
        client = WebhookClient(trust, here)
        assert await client.post(f"https://hooks.example:{hook.port}/", rules, {}, b"{}") == 200
        for name, trusting in (("others.example", trust), ("hooks.example", webhook_trust())):
            with pytest.raises(Unavailable):
                await WebhookClient(trusting, here).post(f"https://{name}:{hook.port}/", rules, {}, b"{}")
        with pytest.raises(InvalidRequest, match="https"):
            await client.post(hook.url, rules, {}, b"{}")


async def test_one_receiver_that_hangs_does_not_hold_up_the_others(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_delivery, "POSTPONED", 0.05)
    sending.rules = LOOPBACK.model_copy(update={"timeout": 20.0})
    async with AsyncExitStack() as stack:
        hanging = await stack.enter_async_context(receiver(hang))
        hook = await stack.enter_async_context(receiver())
        sending.scene.addresses["hanging.example"] = [HOST]
        for _ in range(webhook_delivery.CONCURRENCY + 10):
            await sending.end(f"http://hanging.example:{hanging.port}/")
        await _received(hanging, 1)
        submitted = await sending.tasks.submit(QUEUE, 1, webhook=hook.url, submitter="public/key:bob")
        await _received(hook, 1)
        assert hook.received[0].headers["webhook-id"].startswith(submitted.task.id)
        assert len(hanging.received) <= webhook_delivery.MOST_FOR_ONE


async def test_webhooks_of_tasks_from_another_gateway_are_left_to_that(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_delivery, "POSTPONED", 0.02)
    monkeypatch.setattr(webhook_delivery, "MOST_PASSES", 3)
    async with receiver() as hook:
        for submitter in ("partners/key:alice", "partners/anonymous"):
            await sending.tasks.submit(QUEUE, 1, webhook=hook.url, submitter=submitter)
        for submitter in ("operator/alice", "spiffe://weft.local/agent/editor/e-1"):
            await sending.tasks.submit(QUEUE, 1, webhook=hook.url, submitter=submitter)
        await _received(hook, 2)

        async def both_given_up() -> bool:
            return len(await sending.broker.peek(WEBHOOK_QUEUE, limit=9, dead=True)) == 2

        async with asyncio.timeout(LIMIT):
            await until(both_given_up)
    assert len(hook.received) == 2


async def test_what_is_no_announcement_is_set_aside_and_where_to_is_what_the_task_says(
    sending: Sending,
) -> None:
    async with receiver() as hook, receiver() as elsewhere:
        task_id = await sending.end(hook.url)
        await _received(hook, 1)
        forged = json.dumps({"task": task_id, "url": elsewhere.url}).encode()
        await sending.broker.enqueue(WEBHOOK_QUEUE, Message("forged", forged))
        await sending.broker.enqueue(WEBHOOK_QUEUE, Message("garbage", b"\xff"))
        await _received(hook, 2)
        assert "no announcement" in await sending.dead_letter()
        await sending.settled()
    assert elsewhere.connections == 0


def _server_files(pki: Pki, directory: Path) -> tuple[Path, Path]:
    chain, key = directory / "chain.pem", directory / "key.pem"
    for path, content in zip((chain, key), pki.svid("", dns_names=["hooks.example"]), strict=True):
        path.write_bytes(content)
    return chain, key
