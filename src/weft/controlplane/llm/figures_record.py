"""What the replica that schedules tells all replicas of how things stand, about once a second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pydantic import TypeAdapter, ValidationError

from weft.controlplane.llm.budget_figures import BudgetFigures
from weft.controlplane.llm.call import Call
from weft.controlplane.llm.figures import PoolFigures
from weft.controlplane.llm.recent_usage import TenantRate
from weft.model.service_class import ServiceClass

FIGURES_BUCKET: Final = "llm-figures"
"""Where the records are: one per pool, `pool.NAME`, and `mesh` for what concerns all."""

FIGURES_TTL: Final = 10.0
"""Seconds after which figures that are not replaced are gone."""

MAX_WAITING_SHOWN: Final = 500
"""Of those who wait for one pool, the first so many are told of."""

MAX_SHOWN: Final = 500
"""Of leases and of tenants: those that use most, or wait longest."""

_MESH = "mesh"


@dataclass(frozen=True, slots=True)
class WaitingCall:
    """A call that waits."""

    id: str
    pool: str
    tenant: str
    agent_type: str
    model: str
    service_class: ServiceClass
    since: float
    """Seconds since 1970."""
    deadline: float | None
    """When its answer is of no use any more, in seconds since 1970."""
    position: int
    """From 1, by class and arrival. Fairness between tenants may let others go first."""


@dataclass(frozen=True, slots=True)
class FiguresRecord:
    """How things stand, or a part of it."""

    at: float
    """Seconds since 1970."""
    replica: str
    """The one that schedules."""
    pools: tuple[PoolFigures, ...] = ()
    waiting: tuple[WaitingCall, ...] = ()
    budgets: tuple[BudgetFigures, ...] = ()
    top: tuple[TenantRate, ...] = ()


class FiguresCodec:
    """The records as JSON. Unknown fields are ignored."""

    def encode(self, value: FiguresRecord) -> bytes:
        """Return the JSON of `value`."""
        return _RECORD.dump_json(value)

    def decode(self, data: bytes) -> FiguresRecord:
        """Return the record in `data`; raise ValueError if it holds none."""
        try:
            return _RECORD.validate_json(data)
        except ValidationError as error:
            raise ValueError("not figures of the scheduler") from error


_RECORD: TypeAdapter[FiguresRecord] = TypeAdapter(FiguresRecord)


def waiting_calls(calls: Iterable[Call]) -> tuple[WaitingCall, ...]:
    """Who waits for one pool, in about the order in which they will be served; MAX_WAITING_SHOWN at most."""
    ordered = sorted(calls, key=lambda each: (each.service_class.rank, each.arrived, each.id))
    return tuple(
        WaitingCall(
            each.id,
            each.pool,
            each.tenant,
            each.agent_type,
            each.model,
            each.service_class,
            each.arrived,
            each.deadline,
            position,
        )
        for position, each in enumerate(ordered[:MAX_WAITING_SHOWN], 1)
    )


def parted(record: FiguresRecord) -> dict[str, FiguresRecord]:
    """`record` in parts of bounded size, by their keys in FIGURES_BUCKET."""
    rest = replace(record, pools=(), waiting=(), budgets=(), top=())
    parts = {
        f"pool.{pool.pool}": replace(
            rest,
            pools=(_bounded(pool),),
            waiting=tuple(each for each in record.waiting if each.pool == pool.pool)[:MAX_WAITING_SHOWN],
        )
        for pool in record.pools
    }
    return {_MESH: replace(rest, budgets=record.budgets, top=record.top[:MAX_SHOWN]), **parts}


def joined(parts: Mapping[str, FiguresRecord]) -> FiguresRecord | None:
    """What `parted` made parts of; None if nobody has told anything for a while."""
    mesh = parts.get(_MESH)
    if mesh is None:
        return None
    pools = [each for key, each in sorted(parts.items()) if key != _MESH and each.replica == mesh.replica]
    return replace(
        mesh,
        pools=tuple(pool for each in pools for pool in each.pools),
        waiting=tuple(call for each in pools for call in each.waiting),
    )


def _bounded(pool: PoolFigures) -> PoolFigures:
    leases = sorted(pool.leases.items(), key=lambda each: -each[1].requests_per_second)
    waiting = sorted(pool.waiting, key=lambda each: -each.longest)
    return replace(
        pool,
        leases=dict(leases[:MAX_SHOWN]) if len(leases) > MAX_SHOWN else pool.leases,
        waiting=tuple(waiting[:MAX_SHOWN]) if len(waiting) > MAX_SHOWN else pool.waiting,
    )
