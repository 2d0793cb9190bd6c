"""Opening the broker that a mesh has its topics and queues in."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

from weft.errors import Unavailable
from weft.messaging.broker import BrokerAdmin
from weft.model.message_broker import BrokerType
from weft.store.nats import NatsStore

CONNECT_TIMEOUT = 10.0
"""Seconds in which a broker must answer."""


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """Where a broker is, and how to get in."""

    type: str
    """`nats`, `redis` or `rabbitmq`."""
    url: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    management_url: str | None = None
    """Of RabbitMQ; for who asks how queues stand."""


_HOMES = {
    BrokerType.REDIS: ("weft.messaging.brokers.redis", "RedisBroker", "redis"),
    BrokerType.RABBITMQ: ("weft.messaging.brokers.rabbitmq", "RabbitBroker", "rabbitmq"),
}
"""Module, class, and the extra that brings the client library; loaded when a mesh has such a broker."""


async def open_broker(access: BrokerAccess, store: NatsStore) -> BrokerAdmin:
    """Connect to the broker; if that is NATS, through the connection of `store`.

    As many NATS servers keep a queue as keep a bucket. Raises Unavailable if it cannot be reached or its
    client library is not installed.
    """
    if access.type == BrokerType.NATS:
        nats_broker = _load("weft.messaging.brokers.nats", "NatsBroker", "")
        return cast(BrokerAdmin, nats_broker(store.connection, replicas=store.replicas))
    module, name, extra = _HOMES[BrokerType(access.type)]
    options: dict[str, Any] = {"username": access.username, "password": access.password}
    if access.type == BrokerType.RABBITMQ:
        options["management_url"] = access.management_url
    broker = await _load(module, name, extra).connect(access.url, timeout=CONNECT_TIMEOUT, **options)
    return cast(BrokerAdmin, broker)


def _load(module: str, name: str, extra: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"the mesh's broker needs a library that is not installed ({error.name}): "
            f"`pip install weft[{extra}]` brings it"
        ) from error
