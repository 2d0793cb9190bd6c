"""The broker in memory, for the conformance suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conformance.running_broker import RunningBroker

from weft.messaging.broker import BrokerAdmin
from weft.messaging.brokers.memory import MemoryBroker


class _InMemory:
    durable = False

    def __init__(self) -> None:
        self._memory = MemoryBroker()
        self.broker: BrokerAdmin = self._memory

    async def connect(self) -> BrokerAdmin:
        return self._memory.client()

    async def kill(self) -> None:
        raise AssertionError("there is no process to kill")

    async def restart(self) -> None:
        raise AssertionError("there is no process to start")


@asynccontextmanager
async def memory(directory: Path) -> AsyncIterator[RunningBroker]:
    """Nothing to start."""
    running = _InMemory()
    yield running
    await running.broker.aclose()
