"""Tasks while whatever carries them dies, is lost, or has no room: no promise is broken."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.chaos_disk import SmallDisk, small_disk
from tests.e2e.chaos_plan import Plan
from tests.e2e.chaos_play import play
from tests.e2e.chaos_stage import BROKERS, Server, servers
from tests.gateways import LIMIT, QUEUE, GatewayScene, ended, gateway_scene
from tests.servers import NatsServer

from weft.aio.poll import until
from weft.messaging.broker import BrokerAdmin
from weft.model.message_broker import BrokerType
from weft.store.bucket import Store
from weft.tasks.attempt import TaskRun

TASKS = int(os.environ.get("WEFT_CHAOS_TASKS", "600"))
"""For each broker; some of each kind. `make soak` has 10,000, and more rounds."""

ROUNDS = int(os.environ.get("WEFT_CHAOS_ROUNDS", "1"))

SEED = int(os.environ.get("WEFT_CHAOS_SEED", str(random.randrange(1_000_000))))
"""Says who is killed when; each round has the next one. A test that fails prints which it was."""

DEEDS = int(os.environ.get("WEFT_CHAOS_DEEDS", "9"))
"""How often something is killed, frozen or lost in a round; everything is at least once."""

TASKS_LIMIT = 150 + TASKS / 10
"""Seconds for a round."""

DISK = {BrokerType.NATS: 16, BrokerType.REDIS: 16, BrokerType.RABBITMQ: 80}
"""Megabytes of the disk that gets full."""


@pytest.mark.timeout(TASKS_LIMIT + 60)
@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("kind", BROKERS)
async def test_every_promised_task_has_one_result_or_is_a_dead_letter_with_its_reason_whoever_is_killed(
    kind: BrokerType, number: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = SEED + number
    print(f"{kind}: WEFT_CHAOS_SEED={seed} WEFT_CHAOS_TASKS={TASKS} WEFT_CHAOS_DEEDS={DEEDS}")
    async with play(kind, tmp_path) as scene:
        figures = await scene.perform(TASKS, deeds=DEEDS, seed=seed, limit=TASKS_LIMIT)
    print(figures)
    for name, value in figures.items():
        record_property(name, value)
    assert figures["tasks"] == TASKS
    # Being killed with its worker costs a task an attempt, but poison does not drag its neighbours along.
    assert figures["collateral"] <= 2 + TASKS // 1000


@dataclass
class Desk:
    """A gateway in front of a broker that is lost, or whose disk is full, and who submits there."""

    nats: NatsServer
    server: Server
    """The broker's; it may be the same."""
    scene: GatewayScene
    http: httpx.AsyncClient
    headers: dict[str, str]
    store: Store
    broker: BrokerAdmin
    promised: list[str] = field(default_factory=list)
    """Where the tasks are that were taken."""
    refusals: list[httpx.Response] = field(default_factory=list)

    async def submit(self, *, size: int = 10) -> bool:
        """Submit a task under a key of its own; whether it was taken."""
        number = len(self.promised)
        key = {"idempotency-key": str(number)}
        body = {"queue": QUEUE, "payload": {"number": number, "padding": "x" * size}}
        answer = await self.http.post("/v1/tasks", json=body, headers={**self.headers, **key})
        if answer.status_code == 202:
            self.promised.append(answer.headers["location"])
            return True
        self.refusals.append(answer)
        return False

    async def taken_again(self) -> None:
        """Wait until what was refused is taken."""
        async with asyncio.timeout(LIMIT):
            await until(self.submit)

    def check_refusals(self) -> None:
        """What was refused was refused in so many words: come again."""
        assert self.refusals
        for each in self.refusals:
            assert (each.status_code, each.headers["x-weft-error"]) == (503, "unavailable"), each.text
            assert each.headers["retry-after"] == "1"
            assert each.json()["type"] == "urn:weft:problem:unavailable"

    async def check_promises(self) -> None:
        """Whatever was promised is done, once there is a worker."""
        await self.scene.worker(self.store, self.broker, _number)
        for number, location in enumerate(self.promised):
            task = await ended(self.http, location, self.headers)
            assert (task["state"], task["result"]) == ("succeeded", number)


async def _number(run: TaskRun) -> Any:
    return int(run.payload.split(b'"number":')[1].split(b",")[0])


@asynccontextmanager
async def desk(kind: BrokerType, directory: Path, *, max_store: int | None = None) -> AsyncIterator[Desk]:
    """A desk over that broker."""
    async with (
        servers(kind, directory, max_store=max_store) as (nats, server, access),
        AsyncExitStack() as ends,
        gateway_scene() as scene,
    ):
        store, broker = await Plan(nats.url, access, directory / "none").opened("desk")
        ends.push_async_callback(store.close)
        ends.push_async_callback(broker.aclose)
        await scene.declare(broker)
        http = await scene.gateway(store, broker)
        yield Desk(nats, server, scene, http, dict(scene.key("alice")), store, broker)


@pytest.mark.parametrize("kind", BROKERS)
async def test_while_the_broker_is_lost_callers_are_told_to_come_again_and_what_was_promised_is_done(
    kind: BrokerType, tmp_path: Path
) -> None:
    async with desk(kind, tmp_path) as at:
        assert await at.submit()
        await at.server.kill()
        assert not await at.submit()
        at.check_refusals()
        await at.server.start()
        await at.taken_again()
        await at.check_promises()


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_broker_whose_disk_is_full_refuses_and_loses_nothing_that_it_took(
    kind: BrokerType, tmp_path: Path
) -> None:
    with _disk_of(kind, tmp_path) as disk:
        async with desk(kind, tmp_path) as at:
            assert await at.submit()
            disk.fill()

            async def refused() -> bool:
                return not await at.submit(size=4096)

            async with asyncio.timeout(2 * LIMIT):
                await until(refused)
            at.check_refusals()
            disk.free()
            # NATS and Redis end their service, and so does RabbitMQ if a write to its log failed before its
            # alarm was raised: whatever there is room for now, they have to be started again.
            await at.server.kill()
            await at.server.start()
            await at.taken_again()
            await at.check_promises()


def _disk_of(kind: BrokerType, directory: Path) -> AbstractContextManager[SmallDisk]:
    """The disk on which the broker's server keeps its data."""
    (directory / "nats").mkdir()
    place = directory / "nats" / "jetstream" if kind is BrokerType.NATS else directory / kind.value
    return small_disk(place, DISK[kind])


async def test_a_nats_that_holds_as_much_as_it_may_refuses_at_once_and_goes_on_with_more(
    tmp_path: Path,
) -> None:
    async with desk(BrokerType.NATS, tmp_path, max_store=2 * 1024**2) as at:
        while await at.submit(size=100_000):
            pass
        at.check_refusals()
        assert "is full" in at.refusals[0].json()["detail"]
        await at.server.kill()
        at.nats.max_store = 64 * 1024**2
        await at.server.start()
        await at.taken_again()
        await at.check_promises()
