"""RabbitMQ, for the conformance suite of brokers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.conformance.running_broker import RunningBroker
from tests.rabbitmq_server import MISSING, RabbitServer, rabbitmq_server

from weft.messaging.broker import BrokerAdmin
from weft.messaging.brokers.rabbitmq import RabbitBroker


class _Rabbit:
    durable = True

    def __init__(self, server: RabbitServer, broker: BrokerAdmin) -> None:
        self._server = server
        self.broker = broker

    async def connect(self) -> BrokerAdmin:
        return await connected(self._server)

    async def kill(self) -> None:
        await self._server.settle()
        await self._server.kill()

    async def restart(self) -> None:
        await self._server.restart()


async def connected(server: RabbitServer) -> RabbitBroker:
    """A client of that server."""
    return await RabbitBroker.connect(
        server.url, management_url=server.management_url, username=server.username, password=server.username
    )


@asynccontextmanager
async def rabbitmq(directory: Path) -> AsyncIterator[RunningBroker]:
    """A RabbitMQ with its management plugin."""
    if MISSING is not None:
        pytest.skip(MISSING)
    async with rabbitmq_server(directory) as server:
        running = _Rabbit(server, await connected(server))
        yield running
        await running.broker.aclose()
