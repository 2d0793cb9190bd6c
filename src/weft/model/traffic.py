"""TrafficPolicy: how calls to a destination are balanced, limited, timed and repeated."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from weft.model.duration import Grace, Interval, Timeout
from weft.model.header import HeaderName
from weft.model.spec import Spec
from weft.model.target import Target

Limit = Annotated[int, Field(ge=1, le=1_000_000)]


class BalancingPolicy(StrEnum):
    """How the next instance is chosen."""

    ROUND_ROBIN = "roundRobin"
    LEAST_CONNECTIONS = "leastConnections"
    """The one with the fewest calls in flight from the caller's sidecar."""
    WEIGHTED = "weighted"
    """In turn, by the instances' weights."""
    RANDOM = "random"
    CONSISTENT_HASH = "consistentHash"
    """Calls with the same value of a header go to the same instance while it lives."""


class HashOn(Spec):
    """What a consistent hash is taken of."""

    header: HeaderName = "x-weft-context"


class LoadBalancing(Spec):
    """How calls are spread over the instances."""

    policy: BalancingPolicy = BalancingPolicy.ROUND_ROBIN
    hash_on: HashOn = HashOn()
    """For consistentHash only."""
    slow_start: Grace = 0.0
    """Over how long a new instance gets its full share; for roundRobin, weighted and leastConnections."""
    context_affinity: bool = False
    """Whether calls with `x-weft-context` prefer the instance that the others of their conversation went to;
    others are spread as `policy` says. Costs every sidecar about 0.1 MB for the destination."""


class LocalityPreference(Spec):
    """Whether near instances are preferred."""

    failover: bool = True
    """Use the caller's own zone while it has healthy instances, then its region, then any."""


class OutlierDetectionSettings(Spec):
    """When an instance is left out for a while because its calls fail."""

    enabled: bool = True
    consecutive_failures: Limit = 5
    """Calls in a row that end in a 5xx answer, or without one."""
    interval: Interval = 10.0
    ejection_time: Interval = 30.0
    """How long it is left out the first time; longer each time after that."""
    max_ejected_percent: Annotated[int, Field(ge=0, le=100)] = 50


class CircuitBreaker(Spec):
    """Limits on what one sidecar has under way towards the destination; beyond them calls are refused."""

    max_connections: Limit = 10_000
    max_pending_requests: Limit = 10_000
    max_requests: Limit = 10_000
    max_retries: Limit = 1_000


class Retries(Spec):
    """How often a call that failed is tried again, where repeating it is safe at all."""

    attempts: Annotated[int, Field(ge=0, le=10)] = 3
    per_try_timeout: Timeout | None = None
    """For calls with an Idempotency-Key: how long one try may take before another instance is tried."""


class TrafficPolicySpec(Spec):
    """How calls to a destination are balanced, limited, timed and repeated."""

    target: Target | None = None
    """The destination; if omitted, the policy is the mesh's default, whose fields the others inherit."""
    load_balancing: LoadBalancing = LoadBalancing()
    locality: LocalityPreference = LocalityPreference()
    outlier_detection: OutlierDetectionSettings = OutlierDetectionSettings()
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    timeout: Timeout = 30.0
    """How long a call may take in all."""
    idle_timeout: Timeout = 300.0
    """How long a stream may be silent."""
    retries: Retries = Retries()
