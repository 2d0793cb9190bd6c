"""What a member of the mesh asks the control plane about topics and queues."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from weft.errors import Denied, MeshError, NotFound, Unavailable
from weft.messaging.opening import BrokerAccess
from weft.model.names import check_name
from weft.model.queue import QueueSpec
from weft.model.spec import Spec
from weft.model.topic import TopicSpec

Ask = Callable[[str, str, Mapping[str, Any] | None], Awaitable[Any]]
"""Asks the control plane's API: method, path, JSON body; gives the JSON answer. Raises MeshError."""

SpecT = TypeVar("SpecT", bound=Spec)

FRESHNESS = 30.0
"""Seconds for which a declaration is not asked for again."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A group of a topic that this member may pull from."""

    topic: str
    group: str


class Directory:
    """The declarations of queues and topics, as the control plane told them a short while ago."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        """Asks the control plane whatever else there is to ask."""
        self._queues = _Cache(QueueSpec, "queue", ask)
        self._topics = _Cache(TopicSpec, "topic", ask)

    async def queue(self, name: str) -> QueueSpec:
        """How a queue is declared. Raises NotFound, or Unavailable if it was never told."""
        return await self._queues.get(name)

    async def topic(self, name: str) -> TopicSpec:
        """How a topic is declared. Raises NotFound, or Unavailable if it was never told."""
        return await self._topics.get(name)

    async def broker(self) -> BrokerAccess:
        """Where topics and queues are. Raises Unavailable."""
        answer = await self.ask("GET", "/v1/broker", None)
        try:
            return BrokerAccess(**{key: answer[key] for key in ("type", "url", "username", "password")})
        except (TypeError, KeyError) as error:
            raise Unavailable(
                "the control plane's answer does not say where topics and queues are"
            ) from error

    async def subscribe(
        self, pattern: str, *, every_instance: bool, start: Mapping[str, float] | None = None
    ) -> list[Subscription]:
        """Have groups for all topics that `pattern` stands for, which this member may pull from.

        One for its type, or with `every_instance` one for itself, that ends with it. `start` is as in the
        API: `{"time": ...}` or `{"sequence": ...}` for a new group. Raises Denied, NotFound, InvalidRequest.
        """
        body = {"topic": pattern, "everyInstance": every_instance, "start": dict(start) if start else None}
        answer = await self.ask("POST", "/v1/subscriptions", body)
        try:
            return [Subscription(str(each["topic"]), str(each["group"])) for each in answer["subscriptions"]]
        except (TypeError, KeyError) as error:
            raise Unavailable("the control plane's answer to a subscription makes no sense") from error


class _Cache(Generic[SpecT]):
    """Declarations of one kind, by name."""

    def __init__(self, spec: type[SpecT], kind: str, ask: Ask) -> None:
        self._spec = spec
        self._kind = kind
        self._ask = ask
        self._known: dict[str, tuple[SpecT, float]] = {}

    async def get(self, name: str) -> SpecT:
        check_name(name, self._kind)
        loop = asyncio.get_running_loop()
        known = self._known.get(name)
        if known is not None and loop.time() < known[1]:
            return known[0]
        try:
            spec = await self._fetch(name)
        except (NotFound, Denied):
            self._known.pop(name, None)
            raise
        except MeshError:
            # What it was is better than nothing while the control plane is away.
            if known is None:
                raise
            spec = known[0]
        self._known[name] = spec, loop.time() + FRESHNESS
        return spec

    async def _fetch(self, name: str) -> SpecT:
        answer = await self._ask("GET", f"/v1/{self._kind}s/{name}", None)
        try:
            return self._spec.model_validate(answer["spec"])
        except (ValidationError, TypeError, KeyError) as error:
            raise Unavailable(
                f"the control plane's description of {self._kind} {name!r} makes no sense"
            ) from error
