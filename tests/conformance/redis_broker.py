"""Redis, for the conformance suite of brokers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conformance.running_broker import RunningBroker
from tests.redis_server import RedisServer, redis_server

from weft.messaging.broker import BrokerAdmin
from weft.messaging.brokers.redis import RedisBroker


class _OnRedis:
    durable = True

    def __init__(self, server: RedisServer, broker: BrokerAdmin) -> None:
        self._server = server
        self.broker = broker

    async def connect(self) -> BrokerAdmin:
        return await RedisBroker.connect(self._server.url)

    async def kill(self) -> None:
        await self._server.kill()

    async def restart(self) -> None:
        await self._server.restart()


@asynccontextmanager
async def redis(directory: Path) -> AsyncIterator[RunningBroker]:
    """A redis-server, and a client of it."""
    async with redis_server(directory) as server:
        broker = await RedisBroker.connect(server.url)
        try:
            yield _OnRedis(server, broker)
        finally:
            await broker.aclose()
