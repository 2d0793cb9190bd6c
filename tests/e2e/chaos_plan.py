"""What the programs of the chaos tests share: what is to be done, and what is right about its end."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from weft.errors import Unavailable
from weft.messaging.broker import BrokerAdmin
from weft.messaging.opening import BrokerAccess, open_broker
from weft.model.queue import QueueSpec
from weft.model.redelivery import Backoff
from weft.store.nats import NatsStore

QUEUE = "chaos"

SPEC = QueueSpec(
    visibility_timeout=2.0,
    time_limit=1.0,
    max_deliveries=4,
    concurrency=16,
    backoff=Backoff(initial=0.1, factor=2.0, longest=1.0),
)

_TIMEOUT = 3.0


class Kind(StrEnum):
    """What happens to a task, if nobody is killed."""

    QUICK = "quick"
    """It succeeds."""
    FLAKY = "flaky"
    """Its first attempt fails, the second succeeds."""
    FAILING = "failing"
    """Every attempt fails."""
    REFUSED = "refused"
    """It fails for good at once: it makes no sense."""
    HANGING = "hanging"
    """Every attempt takes longer than it may."""
    POISON = "poison"
    """Every attempt is the death of its worker."""


EXECUTIONS: Mapping[Kind, int] = {
    Kind.QUICK: 1,
    Kind.FLAKY: 2,
    Kind.FAILING: SPEC.max_deliveries,
    Kind.REFUSED: 1,
    Kind.HANGING: SPEC.max_deliveries,
    Kind.POISON: SPEC.max_deliveries,
}
"""How often each is begun, if nobody is killed."""

TOO_MANY = "too-many-deliveries"

ERRORS: Mapping[Kind, str] = {
    Kind.FAILING: "agent-failed",
    Kind.REFUSED: "invalid-request",
    Kind.HANGING: "timed-out",
    Kind.POISON: TOO_MANY,
}
"""Codes of the errors of those that never succeed; TOO_MANY, too, if the last attempt's worker was killed."""


def kind_of(number: int) -> Kind:
    """What the task of that number is like."""
    if number % 2003 == 300:
        return Kind.POISON
    if number % 1009 == 200:
        return Kind.HANGING
    if number % 701 == 350:
        return Kind.REFUSED
    if number % 331 == 100:
        return Kind.FAILING
    if number % 97 == 50:
        return Kind.FLAKY
    return Kind.QUICK


@dataclass(frozen=True)
class Plan:
    """Where everything is. Its file says it to the programs: passwords are in no arguments."""

    nats: str
    broker: BrokerAccess
    executions: Path
    """A line for each time that a handler began."""
    key: str = ""
    """The SHA-256 of the API key that the gateways take."""

    def write(self, file: Path) -> None:
        """Write it down."""
        file.write_text(json.dumps(asdict(self), default=str))

    @classmethod
    def read(cls, file: Path) -> Plan:
        """What was written down."""
        told = json.loads(file.read_text())
        return cls(told["nats"], BrokerAccess(**told["broker"]), Path(told["executions"]), told["key"])

    async def opened(self, name: str) -> tuple[NatsStore, BrokerAdmin]:
        """The store and the broker, as soon as both are there."""
        while True:
            try:
                store = await NatsStore.connect([self.nats], name=name, timeout=_TIMEOUT)
            except Unavailable:
                await asyncio.sleep(0.1)
                continue
            try:
                return store, await open_broker(self.broker, store)
            except Unavailable:
                await store.close()
                await asyncio.sleep(0.1)


class Journal:
    """A file to which many processes append lines, none of which gets lost with a process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, line: str) -> None:
        """Add one line, in one write."""
        os.write(self._file, f"{line}\n".encode())

    def lines(self) -> list[str]:
        """All lines so far."""
        return self.path.read_text().splitlines()

    def close(self) -> None:
        """Close it."""
        os.close(self._file)
