"""Tasks submitted, worked on, and disturbed, from the first submission to the last end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.chaos_customer import Customer
from tests.e2e.chaos_havoc import Havoc
from tests.e2e.chaos_plan import QUEUE, SPEC, Journal, Plan
from tests.e2e.chaos_stage import Post, Server, manned, servers
from tests.e2e.chaos_witness import Execution, Witness, all_ended, check, ends

from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.messaging.broker import BrokerAdmin, QueueSettings
from weft.model.api_key import api_key_hash, new_api_key
from weft.model.message_broker import BrokerType
from weft.model.task import Task
from weft.store.bucket import Bucket
from weft.tasks.ledger import Ledger

_WORKERS = 3
_GATEWAYS = 2
_AT_ONCE = 32
"""Submissions under way."""

_SETTLING = 60.0
"""Seconds after the end of the last task in which its queue holds nothing but dead letters."""

_HOST = "127.0.0.1"


@dataclass
class Play:
    """Everything in its place."""

    servers: list[Server]
    """NATS, and the broker if that is another."""
    workers: list[Post]
    gateways: list[Post]
    urls: list[str]
    """Of the gateways."""
    key: str
    records: Bucket[Task]
    broker: BrokerAdmin
    journal: Journal

    async def perform(self, tasks: int, *, deeds: int, seed: int, limit: float) -> dict[str, Any]:
        """Submit so many tasks while havoc is wreaked, and see that each is brought to its one end.

        Returns figures. `limit` is in seconds; then it says what has not ended, and fails.
        """
        havoc = Havoc(seed, self.workers, self.gateways, self.servers)
        customer = Customer(self.urls, {"x-api-key": self.key}, range(tasks))
        witness = Witness()
        watching = asyncio.create_task(witness.follow(self.records))
        began = time.monotonic()
        try:
            async with manned([*self.workers, *self.gateways]), asyncio.timeout(limit):
                async with asyncio.TaskGroup() as group:
                    group.create_task(customer.submit_all(_AT_ONCE))
                    group.create_task(havoc.wreak(deeds, tasks, lambda: len(witness.ended)))
                await all_ended(witness, customer.promised.values())
                ended = time.monotonic()
                async with asyncio.timeout(_SETTLING):
                    await until(self._is_empty)
        except TimeoutError:
            raise AssertionError(await self._standstill(customer, witness, havoc)) from None
        finally:
            watching.cancel()
        assert not witness.twice
        stand = await ends(self.records, customer.promised.values())
        dead = await self.broker.peek(QUEUE, limit=1000, dead=True)
        executions = [Execution.read(line) for line in self.journal.lines()]
        return {
            **vars(check(customer.promised, stand, executions, dead)),
            "seconds": round(ended - began, 1),
            "slowest_answer": round(customer.longest, 1),
            "refusals": dict(customer.refusals),
            "deeds": dict(havoc.done),
            "starts": [each.starts for each in (*self.workers, *self.gateways)],
        }

    async def _standstill(self, customer: Customer, witness: Witness, havoc: Havoc) -> str:
        """What there is to say of a play that does not end."""
        left = {each for each in customer.promised.values() if each not in witness.ended}
        stand = await ends(self.records, sorted(left)[:10])
        lines = [
            f"{len(customer.promised)} promised, {len(left)} not ended, {dict(havoc.done)}",
            str(await self.broker.queue_stats(QUEUE)),
            *map(str, stand.values()),
            *(f"{each.name}: {each.log[-1500:]}" for each in (*self.workers, *self.gateways)),
        ]
        return "\n".join(lines)

    async def _is_empty(self) -> bool:
        stats = await self.broker.queue_stats(QUEUE)
        return stats.ready + stats.in_flight + stats.delayed == 0


@asynccontextmanager
async def play(kind: BrokerType, directory: Path) -> AsyncIterator[Play]:
    """A play over that broker, yet to be performed; nothing runs any more when the context is left."""
    key = new_api_key("customer")
    async with servers(kind, directory) as (nats, server, access), Guard(grace=0.1) as guard:
        plan = Plan(nats.url, access, directory / "executions", api_key_hash(key))
        plan.write(directory / "plan")
        store, broker = await plan.opened("play")
        await broker.declare_queue(QueueSettings(QUEUE, SPEC.visibility_timeout))
        ports = _ports(_GATEWAYS)
        journal = Journal(plan.executions)
        try:
            yield Play(
                servers=[nats] if server is nats else [nats, server],
                workers=[_worker(number, directory, guard) for number in range(_WORKERS)],
                gateways=[_gateway(port, directory, guard) for port in ports],
                urls=[f"http://{_HOST}:{port}" for port in ports],
                key=key,
                records=(await Ledger.open(store)).records,
                broker=broker,
                journal=journal,
            )
        finally:
            journal.close()
            await broker.aclose()
            await store.close()


def _worker(number: int, directory: Path, guard: Guard) -> Post:
    def arguments(start: int) -> list[str]:
        return [str(directory / "plan"), f"worker.{number}-{start}"]

    return Post("tests.e2e.chaos_worker", arguments, directory / f"worker-{number}.log", guard)


def _gateway(port: int, directory: Path, guard: Guard) -> Post:
    def arguments(_start: int) -> list[str]:
        return [str(directory / "plan"), str(port)]

    return Post("tests.e2e.chaos_gateway", arguments, directory / f"gateway-{port}.log", guard)


def _ports(count: int) -> list[int]:
    with ExitStack() as held:
        return [held.enter_context(reserve_port(_HOST)).port for _ in range(count)]
