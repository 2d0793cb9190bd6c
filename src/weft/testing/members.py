"""Who is in an in-memory mesh, and whom a name means."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from weft.errors import NoHealthyAgent, NoSuchAgent
from weft.model.agent import Instance, Status
from weft.model.names import CAPABILITY_DOMAIN
from weft.sdk.app import AgentApp
from weft.testing.messages import Connection

Step = tuple[Instance | None, Instance | None]
"""An instance before and after a change; None where it is not there."""


@dataclass
class Member:
    """One instance and what runs it."""

    instance: Instance
    app: AgentApp
    messages: Connection
    alive: bool = True
    calls: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def name(self) -> str:
        """How a call addresses it."""
        return f"{self.instance.id}.{self.instance.type}"

    @property
    def available(self) -> bool:
        """Whether it can get a call."""
        return self.alive and self.instance.status is Status.HEALTHY

    def answers_to(self, name: str) -> bool:
        """Whether a call to `name` may go to it."""
        label, _, domain = name.partition(".")
        if domain == CAPABILITY_DOMAIN:
            return label in self.instance.capabilities
        return name in {self.instance.type, self.name}


class Members:
    """The members of a mesh, with word of every change. The dead are remembered: their type stays known."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._turns: Counter[str] = Counter()
        self._watchers: set[asyncio.Queue[Step]] = set()

    def join(self, member: Member) -> None:
        """Add a member."""
        self._members.append(member)
        self._tell(None, member.instance)

    def get(self, name: str) -> Member:
        """The living member called `name`, `<instance>.<type>`. Raises NoSuchAgent."""
        for member in self._members:
            if member.alive and member.name == name:
                return member
        raise NoSuchAgent(f"the mesh has no instance {name!r}, only: {', '.join(self.names())}")

    def living(self) -> list[Member]:
        """All members that are there, sorted by key."""
        return sorted(
            (member for member in self._members if member.alive), key=lambda each: each.instance.key
        )

    def names(self) -> list[str]:
        """The names of all living members."""
        return [member.name for member in self._members if member.alive]

    def count(self, type_: str) -> int:
        """How many members of a type there ever were."""
        return sum(member.instance.type == type_ for member in self._members)

    def candidates(self, name: str) -> list[Member]:
        """Whom to try for a call to `name`, in this order: it begins with the next one at every call.

        Raises NoSuchAgent if the name means nobody, NoHealthyAgent if it means nobody who can take a call.
        """
        meant = [member for member in self._members if member.answers_to(name)]
        if not meant:
            raise NoSuchAgent(f"the mesh knows no agent type, capability or instance {name!r}")
        available = [member for member in meant if member.available]
        if not available:
            raise NoHealthyAgent(f"no healthy agent for {name!r}: none can take a call now")
        turn = self._turns[name] % len(available)
        self._turns[name] += 1
        return available[turn:] + available[:turn]

    def change_status(self, member: Member, status: Status) -> None:
        """Give a member another status."""
        before = member.instance
        member.instance = replace(before, status=status)
        self._tell(before, member.instance)

    def kill(self, member: Member) -> None:
        """Take a member away, and break off its calls. Its app is to be closed next."""
        member.alive = False
        member.messages.cut()
        for call in member.calls:
            call.cancel()
        self._tell(member.instance, None)

    def instances(self) -> list[Instance]:
        """All instances that are there, sorted by key, with their calls in flight."""
        found = [
            replace(member.instance, in_flight=member.app.admission.in_flight)
            for member in self._members
            if member.alive
        ]
        return sorted(found, key=lambda instance: instance.key)

    @contextmanager
    def watching(self) -> Iterator[asyncio.Queue[Step]]:
        """A queue of all changes from now on."""
        queue: asyncio.Queue[Step] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield queue
        finally:
            self._watchers.discard(queue)

    async def aclose(self) -> None:
        """Stop every member."""
        for member in self._members:
            await member.app.aclose()

    def _tell(self, before: Instance | None, after: Instance | None) -> None:
        for watcher in self._watchers:
            watcher.put_nowait((before, after))
