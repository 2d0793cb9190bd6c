"""What the mesh knows of a running agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """Where an instance stands. Only healthy ones get calls."""

    STARTING = "starting"
    """Registered, but its health check has not passed yet."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    """Its health check failed as often in a row as its threshold says."""
    DRAINING = "draining"
    """Finishing the calls in flight, about to stop; takes no new ones."""


@dataclass(frozen=True, slots=True)
class Locality:
    """Where an instance runs. Callers prefer their own zone, then their own region, then any."""

    region: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One running agent, as its sidecar registers it."""

    id: str
    """Unique within its type; a DNS label."""
    type: str
    """What kind of agent it is; a DNS label."""
    endpoint: str
    """`host:port` of its sidecar's inbound listener: where other sidecars send its calls."""
    status: Status = Status.STARTING
    capabilities: frozenset[str] = frozenset()
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    locality: Locality = Locality()
    weight: int = 1
    """Share of the calls under the `weighted` policy, 1 to 1000."""
    in_flight: int = 0
    """Calls in flight when the lease was last renewed."""
    started_at: float = 0.0
    """Seconds since 1970."""
    reason: str = ""
    """Why the status is what it is, for people: the last health check's error, say."""
    incarnation: str = ""
    """Tells an instance from a namesake: drawn at every start, unless the sidecar's supervisor gives it."""

    @property
    def key(self) -> str:
        """Its key in the registry's bucket: `<type>.<id>`."""
        return f"{self.type}.{self.id}"


@dataclass(frozen=True, slots=True)
class Query:
    """Which instances to discover: all conditions given must hold."""

    type: str | None = None
    capabilities: frozenset[str] = frozenset()
    """The instance must have every one of them."""
    version: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    statuses: frozenset[Status] = frozenset({Status.HEALTHY})
    """Empty means any status."""

    def matches(self, instance: Instance) -> bool:
        """Whether `instance` meets every condition."""
        return (
            (self.type is None or instance.type == self.type)
            and self.capabilities <= instance.capabilities
            and (self.version is None or instance.version == self.version)
            and all(instance.labels.get(key) == value for key, value in self.labels.items())
            and (not self.statuses or instance.status in self.statuses)
        )
