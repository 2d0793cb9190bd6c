"""Gateways for tests: real HTTP on loopback, in front of a store and a broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from weft.aio.poll import until
from weft.errors import NotFound
from weft.events.publisher import EventPublisher
from weft.gateway.app import create_app
from weft.gateway.draining import Draining
from weft.gateway.listing import TaskQuery
from weft.gateway.parts import Gateway, GatewayParts
from weft.gateway.tokens import TokenVerifier
from weft.gateway.webhook_address import system_lookup
from weft.gateway.webhook_signature import WebhookSigner
from weft.messaging.broker import BrokerAdmin, QueueSettings
from weft.model.access import Action
from weft.model.api_key import ApiKey, api_key_hash, new_api_key
from weft.model.gateway import GatewaySpec
from weft.model.message_subjects import WEBHOOK_QUEUE
from weft.model.queue import QueueSpec
from weft.model.redelivery import Backoff
from weft.model.spiffe import SpiffeId
from weft.model.topic import TopicSpec
from weft.sdk.server import bind, serving_http
from weft.store.bucket import Store
from weft.tasks.attempt import Runner
from weft.tasks.client import TaskClient
from weft.tasks.listing import TaskPage
from weft.tasks.worker import Worker

HOST = "127.0.0.1"
LIMIT = 60.0
"""Seconds in which whatever is to happen has happened."""

QUEUE = "research"
TOPIC = "orders"
INSIDER = "spiffe://weft.local/agent/editor/e-1"
SIGNER = WebhookSigner(b"s" * 32)
_QUICK = Backoff(initial=0.05, factor=1.0, longest=0.05)


class GatewayScene:
    """What the gateways of one test have in common; change `spec`, `keys` and the like at any time."""

    def __init__(self, ends: AsyncExitStack) -> None:
        self.spec = GatewaySpec()
        self.keys: dict[str, ApiKey] = {}
        self.queues = {QUEUE: QueueSpec(backoff=_QUICK), "other": QueueSpec(), WEBHOOK_QUEUE: QueueSpec()}
        self.allowed: set[tuple[str, str]] = set()
        """Actions and queues or topics that the policies allow members of the mesh."""
        self.not_ready = ""
        self.share = 1
        self.addresses: dict[str, Sequence[str]] = {}
        """Hosts whose addresses are made up; others are looked up."""
        self.gateways: list[Gateway] = []
        """Those that were started."""
        self._ends = ends

    def key(self, name: str, **rights: Any) -> Mapping[str, str]:
        """A new key, as the header that shows it."""
        text = new_api_key(name)
        digest = api_key_hash(text)
        self.keys[digest] = ApiKey(name=name, sha256=digest, created_at=time.time(), **rights)
        return {"x-api-key": text}

    async def declare(self, broker: BrokerAdmin) -> None:
        """Have the queues in `broker`."""
        for name, spec in self.queues.items():
            await broker.declare_queue(QueueSettings(name, spec.visibility_timeout, spec.max_length))

    async def tasks(self, store: Store, broker: BrokerAdmin) -> TaskClient:
        """A client of tasks."""
        return await TaskClient.open(
            store, broker, self._queue, submitter="spiffe://weft.local/agent/gate/g-1"
        )

    async def gateway(
        self, store: Store, broker: BrokerAdmin, *, draining: Draining | None = None
    ) -> httpx.AsyncClient:
        """Another instance of the gateway `public`; the client speaks to it."""
        tasks = await self.tasks(store, broker)
        verifier = TokenVerifier()
        self._ends.push_async_callback(verifier.aclose)

        async def listing(query: TaskQuery) -> TaskPage:
            return await tasks.list(query.queue, state=query.state, limit=query.limit, before=query.before)

        parts = GatewayParts(
            name="public",
            spec=lambda: self.spec,
            keys=lambda: self.keys,
            tasks=tasks,
            list_tasks=listing,
            allowed=self._allowed,
            signer=SIGNER,
            events=EventPublisher(broker, _topic, source="/gateway/public"),
            ready=lambda: self.not_ready,
            share=lambda: self.share,
            draining=draining or Draining(),
            verifier=verifier,
            lookup=self.lookup,
        )
        listener = bind(HOST, 0)
        app = create_app(parts)
        self.gateways.append(app.state.gateway)
        await self._ends.enter_async_context(serving_http(app, listener))
        client = httpx.AsyncClient(
            base_url=f"http://{HOST}:{listener.getsockname()[1]}", timeout=LIMIT, trust_env=False
        )
        return await self._ends.enter_async_context(client)

    async def worker(self, store: Store, broker: BrokerAdmin, run: Runner) -> None:
        """A worker of QUEUE, until the test ends."""
        worker = await Worker.open(store, broker, QUEUE, self.queues[QUEUE], run, name="thinker.t-1")
        running = asyncio.create_task(worker.run())

        async def stop() -> None:
            await worker.drained(0)
            await running
            await worker.aclose()

        self._ends.push_async_callback(stop)

    async def lookup(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host, as this scene has them."""
        return self.addresses.get(host) or await system_lookup(host, port)

    async def _queue(self, name: str) -> QueueSpec:
        try:
            return self.queues[name]
        except KeyError:
            raise NotFound(f"there is no queue {name!r}") from None

    async def _allowed(self, caller: SpiffeId, action: Action, name: str) -> bool:
        assert str(caller) == INSIDER
        return (action.value, name) in self.allowed


async def _topic(name: str) -> TopicSpec:
    if name != TOPIC:
        raise NotFound(f"there is no topic {name!r}")
    return TopicSpec()


@asynccontextmanager
async def gateway_scene() -> AsyncIterator[GatewayScene]:
    """A scene that takes everything away when it is left."""
    async with AsyncExitStack() as ends:
        yield GatewayScene(ends)


async def ended(client: httpx.AsyncClient, location: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The task at `location` once it has ended."""
    task: dict[str, Any] = {}

    async def over() -> bool:
        answer = await client.get(location, headers=headers)
        task.update(answer.raise_for_status().json())
        return task["state"] in {"succeeded", "failed", "cancelled"}

    async with asyncio.timeout(LIMIT):
        await until(over)
    return task


async def abandoned(client: httpx.AsyncClient, gateway: Gateway, headers: Mapping[str, str]) -> None:
    """Submit a task, wait for its end, and hang up while waiting; returns when the gateway has noticed."""
    body = {"queue": QUEUE, "payload": 1}
    waiting = asyncio.create_task(
        client.post("/v1/tasks", json=body, headers={**headers, "prefer": "wait=60"})
    )

    async def waited_for() -> bool:
        return gateway.places.open == 1

    async def forgotten() -> bool:
        return not gateway.places.open

    async with asyncio.timeout(LIMIT):
        await until(waited_for)
        waiting.cancel()
        await until(forgotten)
