"""Who is in the mesh, as the control plane's API says it: queries, instances, and their changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from weft.errors import Unavailable
from weft.model.agent import Instance, Locality, Query, Status

ANY_STATUS = "any"
"""In a query's `status`: whatever the status."""

Name = Annotated[str, Field(max_length=255)]


class LocalityRecord(BaseModel):
    """Where an instance runs."""

    model_config = ConfigDict(frozen=True)

    region: Name = ""
    zone: Name = ""


class InstanceRecord(BaseModel):
    """An instance as the API shows it."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    id: Name
    type: Name
    endpoint: Name = ""
    status: Status
    capabilities: list[Name] = []
    version: Name = ""
    labels: dict[Name, Name] = {}
    locality: LocalityRecord = LocalityRecord()
    weight: int = 1
    in_flight: int = 0
    started_at: float = 0.0
    reason: Annotated[str, Field(max_length=4096)] = ""

    @classmethod
    def of(cls, instance: Instance) -> Self:
        """The record of `instance`."""
        return cls(
            id=instance.id,
            type=instance.type,
            endpoint=instance.endpoint,
            status=instance.status,
            capabilities=sorted(instance.capabilities),
            version=instance.version,
            labels=dict(instance.labels),
            locality=LocalityRecord(region=instance.locality.region, zone=instance.locality.zone),
            weight=instance.weight,
            in_flight=instance.in_flight,
            started_at=instance.started_at,
            reason=instance.reason,
        )

    def instance(self) -> Instance:
        """The instance that this is the record of."""
        return Instance(
            id=self.id,
            type=self.type,
            endpoint=self.endpoint,
            status=self.status,
            capabilities=frozenset(self.capabilities),
            version=self.version,
            labels=self.labels,
            locality=Locality(self.locality.region, self.locality.zone),
            weight=self.weight,
            in_flight=self.in_flight,
            started_at=self.started_at,
            reason=self.reason,
        )


class InstancePage(BaseModel):
    """One page of a listing."""

    items: list[InstanceRecord]
    next: str | None = None
    """What to ask for with `after`; None on the last page."""


class ChangeKind(StrEnum):
    """What happened to an instance."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


class Change(NamedTuple):
    """One step of a watch."""

    kind: ChangeKind
    instance: Instance
    """As it is now; when removed, as it was last."""


def query_of(
    type: str | None,  # noqa: A002 - what it is called everywhere
    capability: str | Iterable[str],
    version: str | None,
    labels: Mapping[str, str] | None,
    status: Status | Iterable[Status] | None,
) -> Query:
    """The query that the arguments of `Mesh.discover` make; `status` None means any."""
    return Query(
        type=type,
        capabilities=frozenset([capability] if isinstance(capability, str) else capability),
        version=version,
        labels=labels or {},
        statuses=frozenset([status] if isinstance(status, Status) else status or ()),
    )


def parameters_of(query: Query) -> list[tuple[str, str]]:
    """`query` as the parameters of the API's URL."""
    parameters = [("capability", each) for each in sorted(query.capabilities)]
    parameters += [("label", f"{key}={value}") for key, value in sorted(query.labels.items())]
    parameters += [("status", each.value) for each in sorted(query.statuses)] or [("status", ANY_STATUS)]
    if query.type is not None:
        parameters.append(("type", query.type))
    if query.version is not None:
        parameters.append(("version", query.version))
    return parameters


def read_page(body: bytes) -> InstancePage:
    """The page that `body` holds. Raises Unavailable if it holds none."""
    try:
        return InstancePage.model_validate_json(body)
    except ValidationError as error:
        raise Unavailable(f"the control plane's list of agents makes no sense: {error}") from error


class Roster:
    """Turns what a watch says, over and over after reconnections, into changes that each happened once.

    After (re)connecting the API lists all instances as added, then says it is in sync; the roster passes on
    only what differs from what it knows.
    """

    def __init__(self) -> None:
        self._known: dict[str, Instance] = {}
        self._listed: set[str] | None = set()

    def reconnecting(self) -> None:
        """A new listing begins."""
        self._listed = set()

    def put(self, instance: Instance) -> list[Change]:
        """An instance was listed, added or changed."""
        before = self._known.get(instance.key)
        self._known[instance.key] = instance
        if self._listed is not None:
            self._listed.add(instance.key)
        if before is None:
            return [Change(ChangeKind.ADDED, instance)]
        return [] if before == instance else [Change(ChangeKind.CHANGED, instance)]

    def remove(self, key: str) -> list[Change]:
        """An instance is gone."""
        before = self._known.pop(key, None)
        return [] if before is None else [Change(ChangeKind.REMOVED, before)]

    def synced(self) -> list[Change]:
        """The listing is complete: who was not on it is gone."""
        listed, self._listed = self._listed, None
        if listed is None:
            return []
        return [change for key in sorted(self._known.keys() - listed) for change in self.remove(key)]
