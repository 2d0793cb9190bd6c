"""The broker, kept as the declared Broker, Queues and Topics ask for."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import TypeVar

from weft.aio.backoff import backoff
from weft.aio.cancellation import cancellation_kept
from weft.aio.tasks import TaskOwner
from weft.controlplane.changes import any_of
from weft.controlplane.inboxes import Inboxes
from weft.errors import Denied, InvalidRequest, MeshError, NotFound, Unavailable
from weft.messaging.broker import NEW, BrokerAdmin, GroupSettings, QueueSettings, Start, TopicSettings
from weft.messaging.control import Subscription
from weft.messaging.opening import BrokerAccess, open_broker
from weft.model.access import Action
from weft.model.decision import AccessRequest, AccessTarget, Decision, TargetKind
from weft.model.inbox import INBOX, inbox_queue
from weft.model.message_broker import BrokerSpec, BrokerType
from weft.model.message_subjects import WEBHOOK_QUEUE, instance_group, type_group
from weft.model.queue import QueueSpec
from weft.model.redelivery import Backoff
from weft.model.resource import AnyResource
from weft.model.secret import SecretSpec
from weft.model.spec import Spec
from weft.model.spiffe import Role, SpiffeId
from weft.model.subtopic import parse_topic_pattern
from weft.model.topic import DEAD_LETTERS, TopicSpec
from weft.resources.view import ResourceView
from weft.store.bucket import Bucket
from weft.store.nats import NatsStore
from weft.tasks.purge import Purge

logger = logging.getLogger(__name__)

INSTANCE_GROUP_EXPIRY = 300.0
"""Seconds for which the group of a single instance is kept once nobody pulls from it."""

SUBSCRIPTIONS_BUCKET = "subscriptions"
"""How the groups of members are declared: keys `<topic>.<group>`."""

REMEMBERED = 30 * 86400.0
"""Seconds for which a group is remembered once its members don't ask for it any more."""

LOOK_INTERVAL = 300.0
"""Seconds after which it is seen to that the broker has yet what it was told to have."""

_LONGEST_PAUSE = 10.0
_MOST_UNAVAILABLE = 3  # refusals without a reason of their own, after which the broker is taken for lost
_GROUP = re.compile(r"[a-z0-9-]{1,63}(_[a-z0-9-]{1,63})?")

_Settings = QueueSettings | TopicSettings
_Key = tuple[str, str]
"""`queue` or `topic`, and the name."""

SpecT = TypeVar("SpecT", bound=Spec)

SecretValue = Callable[[AnyResource, str], str | None]
"""The value of a Secret's key, opened."""

Decide = Callable[[SpiffeId, AccessRequest], Decision]
"""What the policies come to now."""

BUILT_IN_QUEUES: Mapping[str, QueueSpec] = MappingProxyType(
    {WEBHOOK_QUEUE: QueueSpec(max_deliveries=50, backoff=Backoff(initial=2, longest=600))}
)
"""Queues that are always there."""

BUILT_IN_TOPICS: Mapping[str, TopicSpec] = MappingProxyType({DEAD_LETTERS: TopicSpec(dead_letter=None)})
"""Topics that are always there."""


class Brokerage:
    """The broker of the mesh. Have `run` run: until that has reached it, `broker` raises Unavailable."""

    def __init__(
        self,
        store: NatsStore,
        subscriptions: Bucket[GroupSettings],
        declared: ResourceView,
        secret_value: SecretValue,
        decide: Decide,
        inboxes: Inboxes,
    ) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._declared = declared
        self._secret_value = secret_value
        self._decide = decide
        self._inboxes = inboxes
        self._broker: BrokerAdmin | None = None
        self._access: BrokerAccess | None = None
        self._reason = "it has not been reached yet"
        self._kept: dict[_Key, _Settings | None] = {}
        """What the broker has, as this replica has declared it; None: nobody knows how."""
        self._refused: frozenset[_Key] = frozenset()
        self._background = TaskOwner("brokerage")
        self._looked = -math.inf
        """When it was last seen to that the broker has everything, by the event loop's clock."""

    @classmethod
    async def open(
        cls,
        store: NatsStore,
        declared: ResourceView,
        secret_value: SecretValue,
        decide: Decide,
        inboxes: Inboxes,
    ) -> Brokerage:
        """The brokerage over `store`, which stays the caller's to close. Raises Unavailable."""
        subscriptions = await store.bucket(SUBSCRIPTIONS_BUCKET, GroupSettingsCodec())
        return cls(store, subscriptions, declared, secret_value, decide, inboxes)

    @property
    def broker(self) -> BrokerAdmin:
        """The broker. Raises Unavailable, with the reason, while there is none."""
        if self._broker is None:
            raise Unavailable(f"the mesh's broker of topics and queues cannot be used: {self._reason}")
        return self._broker

    @property
    def access(self) -> BrokerAccess:
        """Where the broker is, as it is declared. Raises Unavailable if its password is not there."""
        return broker_access(self._declared.resources, self._secret_value)

    @property
    def queues(self) -> Mapping[str, QueueSpec]:
        """All queues by name, with those that are always there and inboxes; a declared one goes before."""
        inboxes = {inbox_queue(each): INBOX for each in self._inboxes.types}
        return {**BUILT_IN_QUEUES, **inboxes, **_specs(self._declared.resources, QueueSpec)}

    @property
    def topics(self) -> Mapping[str, TopicSpec]:
        """All topics by name, those that are always there included."""
        return {**BUILT_IN_TOPICS, **_specs(self._declared.resources, TopicSpec)}

    async def queue(self, name: str) -> QueueSpec:
        """How a queue is declared. Raises NotFound."""
        return _named(self.queues, "queue", name)

    async def topic(self, name: str) -> TopicSpec:
        """How a topic is declared. Raises NotFound."""
        return _named(self.topics, "topic", name)

    async def subscribe(
        self, member: SpiffeId, pattern: str, *, every_instance: bool, start: Start = NEW
    ) -> list[Subscription]:
        """Have a group for `member` in each topic that `pattern` stands for, and that it may subscribe to.

        Raises Denied where it may not subscribe to the one topic that is named, NotFound if that is not
        declared, InvalidRequest for a pattern that is none.
        """
        wanted = parse_topic_pattern(pattern)
        group, expires = _group_of(member, every_instance=every_instance)
        if wanted.topic:
            await self.topic(wanted.topic)
        found = []
        for name, spec in self.topics.items():
            # Who wants everything does not mean the dead letters of everybody.
            if not wanted.is_of(name) or (name in BUILT_IN_TOPICS and not wanted.topic):
                continue
            decision = self._decide(
                member, AccessRequest(Action.SUBSCRIBE, AccessTarget(TargetKind.TOPIC, name))
            )
            if decision.allowed:
                settings = GroupSettings(name, group, wanted.pattern, start, spec.visibility_timeout, expires)
                await self.broker.declare_group(settings)
                await self._subscriptions.put(f"{name}.{group}", settings, ttl=REMEMBERED)
                found.append(Subscription(name, group))
            elif wanted.topic:
                raise Denied(f"{member} may not subscribe to topic {name!r}: {decision.reason}")
        return found

    async def replay(self, topic: str, group: str, start: Start) -> None:
        """Have a group get everything anew from `start` on. Raises NotFound if nobody subscribed so."""
        await self.topic(topic)
        known = await self._subscriptions.get(f"{topic}.{check_group(group)}")
        if known is None:
            raise NotFound(f"topic {topic!r} has no group {group[:130]!r}; see `weft topic describe {topic}`")
        await self.broker.remove_group(topic, group)
        await self.broker.declare_group(replace(known.value, start=start))

    async def run(self) -> None:
        """Follow what is declared, for ever."""
        try:
            while True:
                seen = self._generations
                await self._follow()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_INTERVAL):
                        await self._changed_since(seen)
        finally:
            await self._background.close()
            await self._close()

    async def _follow(self) -> None:
        """Bring the broker in line; tries on until it is, or something else is declared."""
        seen = self._generations
        for pause in backoff(longest=_LONGEST_PAUSE):
            if await self._is_in_line():
                return
            try:
                async with asyncio.timeout(pause):
                    await self._changed_since(seen)
                    return
            except TimeoutError:
                continue

    @property
    def _generations(self) -> tuple[int, int]:
        return self._declared.generation, self._inboxes.generation

    async def _changed_since(self, seen: tuple[int, int]) -> None:
        await any_of(self._declared.changed_since(seen[0]), self._inboxes.changed_since(seen[1]))

    async def _is_in_line(self) -> bool:
        """Bring the broker in line, and tell whether it is."""
        try:
            with cancellation_kept():  # the brokers' libraries lose some
                await self._connect()
                await self._declare()
        except MeshError as error:
            self._reason = error.detail
            logger.warning("topics and queues are not as declared, trying on: %s", error.detail)
            return False
        return True

    async def _connect(self) -> None:
        access = self.access
        if self._broker is not None and access == self._access:
            return
        await self._close()
        self._broker = await open_broker(access, self._store)
        self._access = access

    async def _declare(self) -> None:
        """Bring in line all that the broker takes. Raises the first refusal, if there was any."""
        now = asyncio.get_running_loop().time()
        everything = now - self._looked >= LOOK_INTERVAL  # it may have lost something
        if everything:
            self._looked = now
        wanted: dict[_Key, _Settings] = {
            **{("queue", name): queue_settings(name, spec) for name, spec in self.queues.items()},
            **{("topic", name): topic_settings(name, spec) for name, spec in self.topics.items()},
        }
        refusals: dict[_Key, MeshError] = {}
        try:
            # What was refused before comes last, and keeps nothing else waiting.
            for key in sorted(wanted, key=lambda each: each in self._refused):
                if everything or self._kept.get(key) != wanted[key]:
                    await _taken(self._have(key, wanted[key]), key, refusals)
            for key in self._kept.keys() - wanted.keys():
                await _taken(self._remove(key), key, refusals)
        finally:
            self._refused = frozenset(refusals)
        if refusals:
            raise next(iter(refusals.values()))

    async def _have(self, key: _Key, settings: _Settings) -> None:
        before = self._kept.get(key)
        if isinstance(settings, QueueSettings):
            self._kept[key] = None
            await self.broker.declare_queue(settings)
        else:
            if isinstance(before, TopicSettings) and before.partitions != settings.partitions:
                await self.broker.remove_topic(settings.name)  # it was deleted, and declared anew
            self._kept[key] = None
            await self.broker.declare_topic(settings)
            await self._have_groups(settings.name)
        self._kept[key] = settings

    async def _have_groups(self, topic: str) -> None:
        """Have the groups of the types that subscribe to a topic, should it have been made (anew) just now.

        Else they would have to ask for them again, and miss what is published till then.
        """
        for entry in await self._subscriptions.entries(topic):
            if entry.value.expires is None:
                await self.broker.declare_group(replace(entry.value, start=NEW))

    async def _remove(self, key: _Key) -> None:
        kind, name = key
        if kind == "queue":
            await self.broker.remove_queue(name)
            self._background.start(self._give_up_tasks(name), name=f"tasks of {name}")
        else:
            await self.broker.remove_topic(name)
        logger.info("%s %r was removed with all it held", kind, name)
        del self._kept[key]

    async def _give_up_tasks(self, queue: str) -> None:
        try:
            await (await Purge.open(self._store, self.broker)).give_up(queue)
        except MeshError as error:
            logger.warning("tasks of queue %r, which was removed, still stand: %s", queue, error.detail)

    async def _close(self) -> None:
        broker, self._broker, self._access = self._broker, None, None
        self._kept = {}
        if broker is not None:
            await broker.aclose()


class GroupSettingsCodec:
    """Groups as JSON."""

    def encode(self, value: GroupSettings) -> bytes:
        """Return the JSON of `value`."""
        return json.dumps(asdict(value), separators=(",", ":")).encode()

    def decode(self, data: bytes) -> GroupSettings:
        """Return the group in `data`; raise ValueError if it holds none."""
        try:
            fields = json.loads(data)
            return GroupSettings(**{**fields, "start": Start(**fields["start"])})
        except (TypeError, KeyError, InvalidRequest) as error:
            raise ValueError(f"not the settings of a group: {error!r}") from error


def check_group(name: str) -> str:
    """Return `name` if it may be that of a member's group, else raise InvalidRequest."""
    if _GROUP.fullmatch(name):
        return name
    raise InvalidRequest(f"{name[:130]!r} is no group: that is an agent type, or <type>_<instance>")


def broker_access(resources: Mapping[str, AnyResource], secret_value: SecretValue) -> BrokerAccess:
    """Where the declared Broker is; NATS if none is declared.

    Raises Unavailable if its password is not in the Secret that it names.
    """
    spec = next((each.spec for each in resources.values() if isinstance(each.spec, BrokerSpec)), BrokerSpec())
    if spec.type is BrokerType.NATS:
        return BrokerAccess(BrokerType.NATS.value)
    password = ""
    if spec.password is not None:
        secret = resources.get(f"secret.{spec.password.secret}")
        value = (
            secret_value(secret, spec.password.key)
            if secret is not None and isinstance(secret.spec, SecretSpec)
            else None
        )
        if value is None:
            raise Unavailable(
                f"the Broker's password is not there: declare Secret {spec.password.secret!r} with a value "
                f"of {spec.password.key!r}"
            )
        password = value
    return BrokerAccess(spec.type.value, spec.url or "", spec.username, password, spec.management_url)


def queue_settings(name: str, spec: QueueSpec) -> QueueSettings:
    """A declared Queue, as brokers want it."""
    return QueueSettings(name, spec.visibility_timeout, spec.max_length)


def topic_settings(name: str, spec: TopicSpec) -> TopicSettings:
    """A declared Topic, as brokers want it."""
    return TopicSettings(name, spec.partitions, spec.max_age, spec.max_bytes)


def _specs(resources: Mapping[str, AnyResource], kind: type[SpecT]) -> dict[str, SpecT]:
    return {each.metadata.name: each.spec for each in resources.values() if isinstance(each.spec, kind)}


def _named(specs: Mapping[str, SpecT], kind: str, name: str) -> SpecT:
    if name not in specs:
        raise NotFound(
            f"there is no {kind} {name[:100]!r}: declare it, or see which there are: weft get {kind}s"
        )
    return specs[name]


async def _taken(change: Awaitable[None], key: _Key, refusals: dict[_Key, MeshError]) -> None:
    """Have one thing changed, or note its refusal: that says nothing about the others.

    Raises Unavailable when it seems that the broker is away.
    """
    try:
        await change
    except MeshError as error:
        refusals[key] = error
        last = [*refusals.values()][-_MOST_UNAVAILABLE:]
        if len(last) == _MOST_UNAVAILABLE and all(isinstance(each, Unavailable) for each in last):
            raise


def _group_of(member: SpiffeId, *, every_instance: bool) -> tuple[str, float | None]:
    if member.role is not Role.AGENT:
        raise Denied(f"{member} is no agent: only agents have groups; read a topic with `weft topic sub`")
    _, agent_type, instance = member.segments
    if every_instance:
        return instance_group(agent_type, instance), INSTANCE_GROUP_EXPIRY
    return type_group(agent_type), None
