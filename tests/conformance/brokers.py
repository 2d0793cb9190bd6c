"""The brokers under test. Each back end is in a module of its own; here they come together."""

from __future__ import annotations

from tests.conformance.memory_broker import memory
from tests.conformance.nats_broker import nats
from tests.conformance.rabbit_broker import rabbitmq
from tests.conformance.redis_broker import redis
from tests.conformance.running_broker import Backend

BACKENDS: dict[str, Backend] = {"memory": memory, "nats": nats, "redis": redis, "rabbitmq": rabbitmq}

INEXACT = frozenset({"rabbitmq"})
"""Those that use what the contract lets a broker count less exactly; of the others the tests ask all."""
