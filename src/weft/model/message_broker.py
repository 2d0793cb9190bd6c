"""Broker: where a mesh's topics and queues are."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from weft.model.secret import SecretKey
from weft.model.spec import Name, Spec

DEFAULT_BROKER = "default"
"""The name that the one Broker of a mesh has."""


class BrokerType(StrEnum):
    """What it is."""

    NATS = "nats"
    """JetStream, in the NATS that holds all else too."""
    REDIS = "redis"
    """Redis Streams, Redis 7 or newer."""
    RABBITMQ = "rabbitmq"
    """RabbitMQ 3.10 or newer, with quorum queues and streams."""


class PasswordSource(Spec):
    """A value of a Secret of this mesh."""

    secret: Name
    key: SecretKey


BrokerUrl = Annotated[str, StringConstraints(max_length=1024, pattern=r"^(rediss?|amqps?|https?)://[^\s@]+$")]
"""Without user and password."""


class BrokerSpec(Spec):
    """Where topics and queues are. Without one they are in NATS. Processes read it when they start."""

    type: BrokerType = BrokerType.NATS
    url: BrokerUrl | None = None
    """`redis://host:6379/0`, `rediss://…`, `amqp://host:5672/vhost`, `amqps://…`; not for nats."""
    username: Annotated[str, StringConstraints(max_length=256)] = ""
    password: PasswordSource | None = None
    """Every process that uses topics or queues is told it."""
    management_url: BrokerUrl | None = Field(default=None)
    """Of RabbitMQ's management plugin (`http://host:15672`): without it only waiting messages are counted."""
