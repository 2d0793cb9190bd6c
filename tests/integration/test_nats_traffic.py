"""Reports of traffic in a real nats-server: everybody tells of its own calls, and of nobody else's."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from prometheus_client import CollectorRegistry
from tests.secured_nats import PATIENCE, secured_nats

from weft.aio.cancellation import end
from weft.aio.poll import until
from weft.controlplane.telemetry.traffic import TrafficView
from weft.model.spiffe import SpiffeId, agent_id, operator_id
from weft.model.subjects import identity_subject
from weft.model.traffic_report import TRAFFIC_SIGNALS, Calls, Edge, TrafficKind, TrafficReport
from weft.store.nats import NatsStore

ALICE = agent_id("weft.local", "planner", "alice")
MALLORY = agent_id("weft.local", "other", "mallory")
OPERATOR = operator_id("weft.local", "ops", "door")


def report(number: int) -> bytes:
    calls = Calls()
    calls.count(200, "-", 7)
    made = {Edge("worker", TrafficKind.AGENT): calls}
    return TrafficReport(f"r-{number}", time.time(), 2.0, 0, made).encode()


async def tells(store: NatsStore, of: SpiffeId, number: int) -> bool:
    broadcast = store.broadcast(TRAFFIC_SIGNALS, of_members=True)
    return await broadcast.send(identity_subject(of), report(number)) and await broadcast.settled(PATIENCE)


async def test_members_tell_of_their_own_traffic_only_and_do_not_hear_of_others(tmp_path: Path) -> None:
    async with secured_nats(tmp_path) as secured:
        view = TrafficView(secured.control, CollectorRegistry())
        listening = asyncio.create_task(view.run())
        async with (
            secured.member(ALICE) as alice,
            secured.member(OPERATOR) as operator,
            secured.raw(MALLORY) as (mallory, complaints),
        ):
            heard: list[str] = []

            async def hear(message: object) -> None:
                heard.append(str(message))

            await mallory.subscribe(f"signals.*.{TRAFFIC_SIGNALS}.>", cb=hear)
            await mallory.flush()
            numbers = iter(range(1000))

            async def listened() -> bool:
                # The view may not listen yet.
                await tells(operator, OPERATOR, next(numbers))
                return {each.of.caller for each in view.edges(30)} == {"operator/ops"}

            async with asyncio.timeout(PATIENCE):
                await until(listened, longest=1.2)
            for name in (ALICE, OPERATOR):
                subject = f"signals.member.{TRAFFIC_SIGNALS}.{identity_subject(name)}"
                await mallory.publish(subject, report(next(numbers)))
            await mallory.flush()
            assert await tells(alice, ALICE, next(numbers))

            async def told() -> bool:
                return len(view.edges(30)) == 2

            async with asyncio.timeout(PATIENCE):
                await until(told)
            found = {each.of.caller: each.window.calls for each in view.edges(30)}
            assert found["planner"] == 7
            assert heard == []
            assert sum("permissions violation" in each.lower() for each in complaints) == 3, complaints
        await end([listening])
