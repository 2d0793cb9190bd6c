"""A mesh without processes and sockets, in which users test their agents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Self

from starlette.types import ASGIApp

from weft.aio.tasks import TaskOwner
from weft.events.subscriber import ReceivedEvent
from weft.model.agent import Instance, Status
from weft.model.queue import QueueSpec
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId, agent_id, operator_id
from weft.model.task import Task, TaskState
from weft.model.topic import TopicSpec
from weft.sdk.agent import Agent
from weft.sdk.mesh import Mesh
from weft.testing.asgi import AsgiTransport
from weft.testing.caller import as_caller
from weft.testing.control import control_app
from weft.testing.members import Member, Members
from weft.testing.messages import Messages
from weft.testing.models import Models
from weft.testing.router import Router

_DOOR = operator_id(DEFAULT_TRUST_DOMAIN, "local", "door")
"""Whom agents take calls from outside for, as in a mesh of `weft up`."""


class InMemoryMesh:
    """Agents that call each other in one process, by the rules of the real mesh.

        async with InMemoryMesh() as mesh:
            mesh.add(summarizer, instances=2)
            assert await mesh.client.request("summarizer", "summarize", text="...") == "..."

    Calls are balanced round robin; a refused one goes to the next instance, one that broke midway only with
    an idempotency key. `client` is an ordinary `Mesh`, and handlers that ask for a `Mesh` get one too.
    Handlers are tools, as at `tools.mesh`: `await mesh.client.call_tool("summarize", text="...")`.
    What it does not have is Envoy: no routes, no policies, no time limits but the client's own.

    It has queues and topics, too. Agents work on tasks as soon as they are added, and get every event that is
    published from then on:

            task = await mesh.client.submit("research", question="...")
            assert await task.result() == "..."
            await mesh.client.publish("orders.created", {"number": 7})
            assert [each.event.type for each in await mesh.events("invoices")] == ["sent"]
    """

    def __init__(
        self,
        *,
        queues: Mapping[str, QueueSpec] | Iterable[str] | None = None,
        topics: Mapping[str, TopicSpec] | Iterable[str] | None = None,
        models: str | None = None,
    ) -> None:
        """`queues` and `topics` are those that are declared, or only their names; others are NotFound.

        Without `queues` there is every queue that somebody asks for, as it is by default; without `topics`
        every topic. Then an agent that subscribes to `>` or `*.failed` gets what is published to topics that
        are there when it is added. Encryption is left out.

        `models` is the URL of a provider whose models are those at `llm.mesh`, as SimulatedLLM has one. There
        is no scheduler before it, and no budget.
        """
        self._members = Members()
        self._messages = Messages(queues, topics)
        self._draining = TaskOwner("in-memory mesh")
        self._dying: list[asyncio.Task[None]] = []
        self._models = None if models is None else Models(models)
        self._router = Router(self._members, control_app(self._members), self._models)
        self.asgi: ASGIApp = as_caller(self._router, _DOOR)
        """The whole mesh as an ASGI application: once served, its address does for `Mesh(proxy=...)`, for
        calls but not for tasks and events."""
        self.client = Mesh(transport=AsgiTransport(self.asgi), joining=self._messages.member(_DOOR).join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._dying)
        await self._draining.close()
        await self._members.aclose()
        await self.client.aclose()
        if self._models is not None:
            await self._models.aclose()
        await self._messages.aclose()

    def add(
        self,
        agent: Agent,
        instances: int = 1,
        *,
        labels: Mapping[str, str] | None = None,
    ) -> list[Instance]:
        """Start `instances` of `agent`, healthy at once, and return them: `<type>-1`, `<type>-2`, ...

        Needs a running event loop. Raises NotFound if it works on a queue, or subscribes to a topic, that is
        not declared.
        """
        return [self._start(agent, labels or {}) for _ in range(instances)]

    def drain(self, instance: Instance | str) -> None:
        """Have an instance finish what it is doing and take nothing new, as at SIGTERM.

        What it has not finished within its `drain_timeout` breaks off; tasks and events are handed back.
        `instance` is one that `add` returned, or its name, `<id>.<type>`. Raises NoSuchAgent if it is not
        there.
        """
        member = self._members.get(_name(instance))
        member.app.drain()
        self._members.change_status(member, Status.DRAINING)
        drained = member.app.drained(member.app.settings.drain_timeout)
        self._draining.start(drained, name=f"{member.name} drains")

    def kill(self, instance: Instance | str) -> None:
        """Take an instance away at once: what it is doing breaks off, as at SIGKILL.

        Its tasks and events go to others at once, rather than after the visibility timeout. What runs in a
        thread cannot be stopped, but nobody hears of it any more. The arguments and errors are those of
        `drain`.
        """
        member = self._members.get(_name(instance))
        self._members.kill(member)
        self._dying.append(asyncio.create_task(member.app.aclose(), name=f"{member.name} dies"))

    def set_status(self, instance: Instance | str, status: Status) -> None:
        """Give an instance a status, as its health checks would. The rest is as in `drain`."""
        self._members.change_status(self._members.get(_name(instance)), status)

    async def tasks(self, queue: str, state: TaskState | None = None) -> list[Task]:
        """The tasks of a queue, oldest first, as `TaskHandle.status` tells of them; or those in one state.

        Dead letters are those that are `TaskState.FAILED`. Raises NotFound for a queue that is not declared.
        """
        return await self._messages.tasks(queue, state)

    async def redrive(self, queue: str) -> int:
        """Have all failed tasks of a queue tried again, as `weft queue redrive` does; return how many.

        Raises NotFound for a queue that is not declared.
        """
        return await self._messages.redrive(queue)

    async def events(self, topic: str) -> list[ReceivedEvent]:
        """All that was published to a topic and is kept, oldest first.

        What subscribers could not process is in the topic `dead-letters`, unless theirs names another. Raises
        NotFound for a topic that is not declared.
        """
        return await self._messages.events(topic)

    def _start(self, agent: Agent, labels: Mapping[str, str]) -> Instance:
        settings = agent.settings
        instance = Instance(
            id=f"{settings.type}-{self._members.count(settings.type) + 1}",
            type=settings.type,
            endpoint="in-memory",
            status=Status.HEALTHY,
            capabilities=settings.capabilities,
            version=settings.version,
            labels=dict(labels),
            started_at=time.time(),
        )
        identity = agent_id(DEFAULT_TRUST_DOMAIN, instance.type, instance.id)
        messages = self._messages.member(identity)
        own = Mesh(transport=AsgiTransport(as_caller(self._router, identity)), joining=messages.join)
        member = Member(instance, agent.app(own), messages)
        self._give_work(member, identity)
        self._members.join(member)
        return instance

    def _give_work(self, member: Member, identity: SpiffeId) -> None:
        """Have it begin. Its groups are there before that, so that it misses nothing from now on."""
        work = member.app.work
        self._messages.have_inbox(member.instance.type)
        for task in work.tasks:
            self._messages.use_queue(task.queue)
        for each in work.events:
            self._messages.subscribe(
                identity, each.topic, every_instance=each.every_instance, start=each.start
            )
        member.app.start()


def _name(instance: Instance | str) -> str:
    return instance if isinstance(instance, str) else f"{instance.id}.{instance.type}"
