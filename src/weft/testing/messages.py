"""Topics, queues and tasks in memory: what the control plane, the store and the broker are in a real mesh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Generic, TypeVar

from weft.errors import Denied, NotFound
from weft.events.subscriber import ReceivedEvent
from weft.events.wire import event_in, passed_on
from weft.messaging.broker import ALL, GroupSettings, QueueSettings, Start, TopicSettings
from weft.messaging.brokers.memory import MemoryBroker
from weft.messaging.control import Subscription
from weft.messaging.protection import NoProtection
from weft.model.inbox import INBOX, inbox_queue
from weft.model.message_subjects import WEBHOOK_QUEUE, instance_group, type_group
from weft.model.names import check_name
from weft.model.queue import QueueSpec
from weft.model.spec import Spec
from weft.model.spiffe import Role, SpiffeId
from weft.model.subtopic import parse_topic_pattern
from weft.model.task import Task, TaskState
from weft.model.tenant import DEFAULT_TENANT
from weft.model.topic import DEAD_LETTERS, TopicSpec
from weft.store.memory import MemoryStore
from weft.tasks.ledger import Ledger
from weft.tasks.listing import listed
from weft.tasks.redrive import Redrive
from weft.testing.immediate import immediately
from weft.testing.mortal_store import MortalStore
from weft.work.membership import Membership, join

SpecT = TypeVar("SpecT", bound=Spec)

Declared = Mapping[str, SpecT] | Iterable[str] | None
"""What is declared, by name, or names alone, for the defaults; None: whatever somebody asks for."""

_PAGE = 100
_READER = "weft-testing"


class Messages:
    """The topics, queues and tasks of a mesh in memory.

    Nothing is encrypted: in one process there is nobody to hide it from.
    """

    def __init__(self, queues: Declared[QueueSpec], topics: Declared[TopicSpec]) -> None:
        self._store = MemoryStore()
        self._broker = MemoryBroker()
        self._queues = _Declarations("queue", QueueSpec, queues, self._have_queue)
        self._topics = _Declarations("topic", TopicSpec, topics, self._have_topic)
        immediately(self._broker.declare_queue(QueueSettings(WEBHOOK_QUEUE)))
        self._topics.add(DEAD_LETTERS, TopicSpec(dead_letter=None))

    def member(self, identity: SpiffeId) -> Connection:
        """A member's own way to all this."""
        return Connection(self, identity, MortalStore(self._store), self._broker.client())

    def use_queue(self, name: str) -> None:
        """Somebody is to work on it. Raises NotFound if it is not declared."""
        self._queues.get(name)

    def have_inbox(self, agent_type: str) -> None:
        """See that agents of a type have a queue for what they are sent by A2A."""
        name = inbox_queue(agent_type)
        if name not in self._queues.specs:
            self._queues.add(name, INBOX)

    def subscribe(
        self,
        member: SpiffeId,
        pattern: str,
        *,
        every_instance: bool,
        start: Mapping[str, Any] | None = None,
    ) -> list[Subscription]:
        """Have a group for `member` in each topic that `pattern` stands for; `start` is as in an EventDuty.

        Raises NotFound if the one topic that it names is not declared, Denied for one who is no agent.
        """
        wanted = parse_topic_pattern(pattern)
        if wanted.topic:
            self._topics.get(wanted.topic)
        if member.role is not Role.AGENT:
            raise Denied(f"{member} is no agent: only agents subscribe")
        _, agent_type, instance = member.segments
        group = instance_group(agent_type, instance) if every_instance else type_group(agent_type)
        found = []
        for name, spec in self._topics.specs.items():
            if wanted.is_of(name) and (name != DEAD_LETTERS or wanted.topic):
                settings = GroupSettings(
                    name, group, wanted.pattern, Start(**(start or {})), spec.visibility_timeout
                )
                immediately(self._broker.declare_group(settings))
                found.append(Subscription(name, group))
        return found

    async def ask(self, member: SpiffeId, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        """What the control plane would answer."""
        match method, path.split("/")[2:]:
            case "GET", ["queues", name]:
                return _described(name, self._queues.get(name))
            case "GET", ["topics", name]:
                return _described(name, self._topics.get(name))
            case "GET", ["tenant"]:
                return {"tenant": DEFAULT_TENANT}
            case "POST", ["subscriptions"] if body is not None:
                groups = self.subscribe(
                    member, body["topic"], every_instance=body["everyInstance"], start=body["start"]
                )
                return {"subscriptions": [{"topic": each.topic, "group": each.group} for each in groups]}
        raise NotFound(f"a mesh in memory has no answer to {method} {path}")

    async def tasks(self, queue: str, state: TaskState | None = None) -> list[Task]:
        """All tasks of a queue, or those in that state, oldest first. Raises NotFound."""
        self._queues.get(queue)
        ledger = await Ledger.open(self._store)
        found: list[Task] = []
        before = None
        while True:
            page = await listed(ledger, queue, state=state, limit=_PAGE, before=before)
            found += page.tasks
            before = page.next
            if before is None:
                return sorted(found, key=lambda each: each.submitted_at)

    async def redrive(self, queue: str) -> int:
        """Have all failed tasks of a queue tried again; how many. Raises NotFound."""
        return await (await Redrive.open(self._store, self._broker)).redrive(queue)

    async def events(self, topic: str) -> list[ReceivedEvent]:
        """All events of a topic, oldest first. Raises NotFound."""
        self._topics.get(topic)
        broker = self._broker.client()
        await broker.declare_group(GroupSettings(topic, _READER, start=ALL))
        found: list[ReceivedEvent] = []
        try:
            consumer = await broker.group_consumer(topic, _READER)
            while deliveries := await consumer.pull(_PAGE, wait=0):
                for each in deliveries:
                    event = await event_in(each.message, topic, NoProtection(), encrypted=False)
                    headers = passed_on(event, each.message)
                    found.append(ReceivedEvent(event, topic, each.subtopic, each.sequence, headers=headers))
                    await each.ack()
        finally:
            await broker.remove_group(topic, _READER)
            await broker.aclose()
        return sorted(found, key=lambda each: each.sequence)

    async def aclose(self) -> None:
        """Forget everything."""
        await self._broker.aclose()
        await self._store.close()

    def _have_queue(self, name: str, spec: QueueSpec) -> None:
        settings = QueueSettings(name, spec.visibility_timeout, spec.max_length)
        immediately(self._broker.declare_queue(settings))

    def _have_topic(self, name: str, spec: TopicSpec) -> None:
        settings = TopicSettings(name, spec.partitions, spec.max_age, spec.max_bytes)
        immediately(self._broker.declare_topic(settings))


class Connection:
    """A member's connection to topics, queues and tasks."""

    def __init__(
        self, messages: Messages, identity: SpiffeId, store: MortalStore, broker: MemoryBroker
    ) -> None:
        self._messages = messages
        self._identity = identity
        self._store = store
        self._broker = broker

    async def join(self) -> Membership:
        """The membership of this member, as `Mesh(joining=...)` wants it."""
        resources = AsyncExitStack()
        resources.push_async_callback(self._broker.aclose)
        return await join(self._store, self._broker, self._ask, identity=self._identity, resources=resources)

    def cut(self) -> None:
        """End it as SIGKILL does: nothing is written any more, and what was in hand comes again, at once."""
        self._store.end()
        immediately(self._broker.aclose())

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        return await self._messages.ask(self._identity, method, path, body)


class _Declarations(Generic[SpecT]):
    """What is declared of one kind."""

    def __init__(self, kind: str, spec: type[SpecT], declared: Declared[SpecT], have: Any) -> None:
        """`have` is called with name and spec of each."""
        self.specs: dict[str, SpecT] = {}
        self._kind = kind
        self._spec = spec
        self._have = have
        self._open = declared is None
        given = declared if isinstance(declared, Mapping) else {name: spec() for name in declared or ()}
        for name, each in given.items():
            self.add(name, each)

    def add(self, name: str, spec: SpecT) -> SpecT:
        # Nobody has keys here, so nobody is to ask for any.
        spec = self.specs[name] = spec.model_copy(update={"encrypted": False})
        self._have(name, spec)
        return spec

    def get(self, name: str) -> SpecT:
        if name in self.specs:
            return self.specs[name]
        if self._open:
            return self.add(check_name(name, self._kind), self._spec())
        raise NotFound(
            f"there is no {self._kind} {name[:100]!r}: declare it, as InMemoryMesh({self._kind}s=...) says"
        )


def _described(name: str, spec: Spec) -> dict[str, Any]:
    return {"name": name, "spec": spec.model_dump(mode="json", by_alias=True)}
