"""What can be seen of a pool: for the API, the CLI and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from weft.model.service_class import ServiceClass


class Health(StrEnum):
    """How a provider is."""

    HEALTHY = "healthy"
    COOLING = "cooling"
    """It asked to be spared for a while."""
    BROKEN = "broken"
    """It failed so often that nothing is sent to it for a while."""
    RETURNING = "returning"
    """It is tried with few calls, and more as these succeed."""


@dataclass(frozen=True, slots=True)
class WaitingFigures:
    """What one tenant has waiting in one class."""

    tenant: str
    service_class: ServiceClass
    """In which it waits now: a class higher than its own once it has waited long."""
    calls: int
    longest: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class ProviderFigures:
    """One provider, now."""

    name: str
    health: Health
    until: float | None
    """When it may be sent something again, if it is cooling or broken."""
    under_way: int
    requests_in_window: int
    tokens_in_window: int
    concurrency: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    """As it told them, where that is less than what is declared."""
    first_token_seconds: float | None
    """Learned; None: nothing yet."""
    token_seconds: float | None
    """Between tokens of an answer; learned."""


@dataclass(frozen=True, slots=True)
class LeaseFigures:
    """What one holder of a lease does."""

    requests_per_second: float
    tokens_per_second: float
    granted_requests: int
    granted_tokens: int


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """A pool, now. Totals are since this scheduler began."""

    pool: str
    contended: bool
    waiting: tuple[WaitingFigures, ...]
    longest_wait: float
    """Seconds; 0 if nobody waits."""
    providers: tuple[ProviderFigures, ...]
    leases: Mapping[str, LeaseFigures]
    """By holder."""
    admitted: int
    refused: Mapping[str, int]
    """By reason."""
    requests_per_second: float
    """Admitted, over the last ten seconds or so; without those on leases."""
    tokens_per_second: float
