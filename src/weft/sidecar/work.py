"""Tasks and events for an agent that does not use the SDK: taken by its sidecar, handed over by HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from weft.errors import Unavailable
from weft.events.subscriber import EventHandler
from weft.messaging.control import Directory
from weft.messaging.opening import open_broker
from weft.model.node import Address
from weft.model.queue import QueueSpec
from weft.model.topic import TopicSpec
from weft.sidecar.agent_client import AgentClient
from weft.sidecar.event_delivery import EventDelivery
from weft.sidecar.identity import SidecarIdentity
from weft.sidecar.lease_server import LeaseServer
from weft.sidecar.settings import SidecarSettings
from weft.sidecar.spans import tracer_of
from weft.sidecar.task_delivery import TaskDelivery
from weft.store.nats import NatsStore
from weft.tasks.attempt import Runner
from weft.work.duties import TaskDuty, Work
from weft.work.event_duty import EventDuty
from weft.work.membership import Membership, join
from weft.work.metrics import WorkMetrics


class SidecarWork:
    """What a sidecar does for its agent. After `start`: `drain`, await `drained`, then `aclose`."""

    def __init__(
        self,
        settings: SidecarSettings,
        agent: Address,
        identity: SidecarIdentity,
        connect: Callable[[], Awaitable[NatsStore]],
        metrics: CollectorRegistry,
    ) -> None:
        """`connect` gives the sidecar's connection to NATS, which stays the sidecar's.

        What is done is counted in `metrics`.
        """
        self._metrics = WorkMetrics(metrics)
        self._settings = settings
        self._identity = identity
        self._connect = connect
        self._agent = AgentClient(agent)
        self._leases = LeaseServer()
        self._tracer = tracer_of(settings, identity)
        self._membership: Membership | None = None
        self._one_joins = asyncio.Lock()
        self._work = Work(
            [TaskDuty(each.queue, self._runner, each.concurrency) for each in settings.consumes],
            [EventDuty(each.topic, self._handler, each.every_instance) for each in settings.subscribes],
            self._join,
        )

    async def start(self) -> None:
        """Begin, in the background. Raises Unavailable if nothing can listen on loopback."""
        try:
            await self._leases.start()
        except OSError as error:
            raise Unavailable(f"the sidecar cannot listen for its agent's leases: {error}") from error
        self._work.start()

    def pause(self) -> None:
        """Take nothing more until `resume`: the agent is not well."""
        self._work.pause()

    def resume(self) -> None:
        """Take tasks and events again."""
        self._work.resume()

    def drain(self) -> None:
        """Take nothing more."""
        self._work.drain()

    async def drained(self, timeout: float) -> None:
        """Wait until nothing is under way; hand back what still is after `timeout` seconds."""
        await self._work.drained(timeout)

    async def aclose(self) -> None:
        """Stop, and hand back what is under way."""
        await self._work.aclose()
        await self._leases.aclose()
        await self._agent.aclose()
        await self._tracer.aclose()
        if self._membership is not None:
            await self._membership.aclose()

    def _runner(self, spec: QueueSpec) -> Runner:
        return TaskDelivery(
            self._agent, self._leases, lease_seconds=spec.visibility_timeout, tracer=self._tracer
        )

    def _handler(self, spec: TopicSpec) -> EventHandler:
        return EventDelivery(
            self._agent,
            time_limit=spec.visibility_timeout,
            event_format=self._settings.event_format,
            tracer=self._tracer,
        )

    async def _join(self) -> Membership:
        async with self._one_joins:
            if self._membership is None:
                self._membership = await self._joined()
            return self._membership

    async def _joined(self) -> Membership:
        ask = self._identity.ask
        store = await self._connect()
        broker = await open_broker(await Directory(ask).broker(), store)
        resources = AsyncExitStack()
        resources.push_async_callback(broker.aclose)
        try:
            return await join(
                store,
                broker,
                ask,
                identity=self._identity.id,
                resources=resources,
                metrics=self._metrics,
            )
        except BaseException:
            await resources.aclose()
            raise
