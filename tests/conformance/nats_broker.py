"""The broker in NATS, for the conformance suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.conformance.running_broker import RunningBroker
from tests.servers import NatsServer, nats_server

from weft.messaging.broker import BrokerAdmin, TopicSettings
from weft.messaging.brokers.nats import NatsBroker
from weft.store.nats_connection import NatsConnection

_TIMEOUT = 5.0


class ConnectedBroker(NatsBroker):
    """A broker that brings its own connection."""

    def __init__(self, connection: NatsConnection) -> None:
        """`connection` is closed with it."""
        super().__init__(connection)
        self._connection = connection

    async def aclose(self) -> None:
        """End the consumers, and close the connection."""
        await super().aclose()
        await self._connection.close()


class _InNats:
    durable = True

    def __init__(self, server: NatsServer, broker: BrokerAdmin) -> None:
        self._server = server
        self.broker = broker

    async def connect(self) -> BrokerAdmin:
        return await connected(self._server)

    async def kill(self) -> None:
        await self._server.kill()

    async def restart(self) -> None:
        await self._server.restart()


async def connected(server: NatsServer) -> ConnectedBroker:
    """A broker with a connection of its own."""
    return ConnectedBroker(await NatsConnection.open([server.url], name="test", timeout=_TIMEOUT))


@asynccontextmanager
async def nats(directory: Path) -> AsyncIterator[RunningBroker]:
    """A nats-server with JetStream."""
    async with nats_server(directory) as server, AsyncExitStack() as stack:
        broker = await connected(server)
        stack.push_async_callback(broker.aclose)
        # With an account's last stream NATS removes the directory of them all, after it has answered: one
        # that is made at that moment fails. A mesh always has some.
        await broker.declare_topic(TopicSettings("always-there"))
        yield _InNats(server, broker)
