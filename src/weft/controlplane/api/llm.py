"""Calls to models over HTTP: how pools stand, who waits, who uses most, and what budgets have left."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Context, CurrentStanding
from weft.controlplane.llm.budget_figures import BudgetFigures
from weft.controlplane.llm.figures import Health, PoolFigures, ProviderFigures
from weft.controlplane.llm.figures_record import FiguresRecord
from weft.controlplane.llm.recent_usage import TenantRate
from weft.errors import NotFound
from weft.model.budget import BudgetScope, Period
from weft.model.model_pool import ModelPool, ModelPoolSpec
from weft.model.names import MAX_NAME_LENGTH
from weft.model.operator import Scope
from weft.model.service_class import ServiceClass

router = APIRouter(prefix="/v1/llm", tags=["models"], dependencies=[Depends(requires(Scope.VIEWER))])

Name = Annotated[str, Path(max_length=MAX_NAME_LENGTH)]


class Waiting(Body):
    """What one tenant has waiting in one class."""

    tenant: str
    service_class: ServiceClass
    """In which it waits now: a class higher than its own once it has waited long."""
    calls: int
    longest: float
    """Seconds."""


class ProviderStatus(Body):
    """One provider, now."""

    name: str
    health: Health
    """Cooling: it asked to be spared. Broken: it is sent nothing. Returning: it is tried with few calls."""
    until: float | None
    """When it may be sent something again, in seconds since 1970, if it is cooling or broken."""
    under_way: int
    requests_in_window: int
    """In the last sixty seconds, with what leases may use of it."""
    tokens_in_window: int
    concurrency: int | None
    """Its limits, as declared or as it told them, whichever is less."""
    requests_per_minute: int | None
    tokens_per_minute: int | None
    first_token_seconds: float | None
    """Seconds to the first token of an answer, as learned."""
    token_seconds: float | None
    """Seconds between tokens of an answer, as learned."""


class PoolStatus(Body):
    """A pool, now. Totals are since its present scheduler began."""

    name: str
    models: list[str]
    """The names under which agents ask for it; `*` is every name that no other pool has."""
    scheduled: bool
    """Whether the replica that schedules knows it; if not, all figures are nothing."""
    contended: bool
    """Whether calls have to wait: then all of them are asked about, and there are no leases."""
    calls_waiting: int
    waiting: list[Waiting]
    longest_wait: float
    """Seconds."""
    under_way: int
    """Calls that were admitted; without those on leases."""
    leases: int
    """Sidecars that send on leased quota."""
    admitted: int
    refused: dict[str, int]
    """By reason."""
    requests_per_second: float
    """Admitted a moment ago; without those on leases."""
    tokens_per_second: float
    providers: list[ProviderStatus]


class PoolStatusList(Body):
    """All pools, by name."""

    items: list[PoolStatus]


class WaitingCallOut(Body):
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


class Queue(Body):
    """Who waits, by pool and position; of each pool the first 500."""

    items: list[WaitingCallOut]


class BudgetStatus(Body):
    """One account of a budget in its present period. Times are seconds since 1970."""

    budget: str
    scope: BudgetScope
    value: str | None
    """The tenant, key or context; empty for the mesh; null: nobody has spent anything yet."""
    period: Period
    begins: float
    ends: float | None
    """When it begins anew; null: never."""
    limit_tokens: int | None
    limit_usd: float | None
    spent_tokens: int
    spent_usd: float
    set_aside_tokens: int
    """For calls under way: what they may use at most."""
    set_aside_usd: float
    calls: int
    """Under way."""
    share: float
    """How much of the limit is spent or set aside: of tokens or money, whichever is nearer to its end."""


class BudgetStatusList(Body):
    """The accounts nearest to their limit, 500 at most."""

    items: list[BudgetStatus]


class TenantRateOut(Body):
    """What a tenant uses of a pool, over the last minute. A call counts when it ends."""

    tenant: str
    pool: str
    calls_per_second: float
    tokens_per_second: float
    waiting: int
    """Calls that wait now."""


class Top(Body):
    """Who uses most, first; then who only waits."""

    items: list[TenantRateOut]


@router.get("/pools")
async def list_pools(context: Context, standing: CurrentStanding) -> PoolStatusList:
    """How all pools stood a moment ago."""
    current = _by_name(await standing.figures())
    return PoolStatusList(items=[_pool(pool, current.get(pool.name)) for pool in _declared(context)])


@router.get("/pools/{name}")
async def pool_status(context: Context, standing: CurrentStanding, name: Name) -> PoolStatus:
    """How a pool stood a moment ago."""
    pool = next((each for each in _declared(context) if each.name == name), None)
    if pool is None:
        raise NotFound(f"no ModelPool {name!r} is declared")
    return _pool(pool, _by_name(await standing.figures()).get(name))


@router.get("/queue")
async def queue(
    standing: CurrentStanding,
    pool: Annotated[str | None, Query(max_length=MAX_NAME_LENGTH)] = None,
) -> Queue:
    """Who waits, of all pools or of one."""
    waiting = (await standing.figures()).waiting
    return Queue(
        items=[WaitingCallOut.model_validate(each) for each in waiting if pool is None or each.pool == pool]
    )


@router.get("/budgets")
async def budgets(standing: CurrentStanding) -> BudgetStatusList:
    """What budgets have spent in their present period, and what is set aside for calls under way."""
    return BudgetStatusList(items=[_budget(each) for each in (await standing.figures()).budgets])


@router.get("/top")
async def top(standing: CurrentStanding) -> Top:
    """Who uses most tokens, over the last minute."""
    return Top(items=_top(await standing.figures()))


def _declared(context: Context) -> list[ModelPool]:
    """The pools that are declared, by name."""
    found = (each for each in context.declared.resources.values() if isinstance(each.spec, ModelPoolSpec))
    return sorted((ModelPool(each.metadata.name, each.spec) for each in found), key=lambda each: each.name)


def _by_name(record: FiguresRecord) -> dict[str, PoolFigures]:
    return {each.pool: each for each in record.pools}


def _pool(pool: ModelPool, figures: PoolFigures | None) -> PoolStatus:
    known = figures or PoolFigures(pool.name, False, (), 0.0, (), {}, 0, {}, 0.0, 0.0)
    return PoolStatus(
        name=pool.name,
        models=list(pool.models),
        scheduled=figures is not None,
        contended=known.contended,
        calls_waiting=sum(each.calls for each in known.waiting),
        waiting=[Waiting.model_validate(each) for each in known.waiting],
        longest_wait=known.longest_wait,
        under_way=sum(each.under_way for each in known.providers),
        leases=len(known.leases),
        admitted=known.admitted,
        refused=dict(known.refused),
        requests_per_second=known.requests_per_second,
        tokens_per_second=known.tokens_per_second,
        providers=[_provider(each) for each in known.providers],
    )


def _provider(figures: ProviderFigures) -> ProviderStatus:
    return ProviderStatus.model_validate(figures)


def _budget(figures: BudgetFigures) -> BudgetStatus:
    return BudgetStatus.model_validate(figures)


def _top(record: FiguresRecord) -> list[TenantRateOut]:
    waiting: dict[tuple[str, str], int] = {}
    for pool in record.pools:
        for each in pool.waiting:
            place = each.tenant, pool.pool
            waiting[place] = waiting.get(place, 0) + each.calls
    using = [_rate(each, waiting.pop((each.tenant, each.pool), 0)) for each in record.top]
    only_waiting = [
        _rate(TenantRate(tenant, pool, 0.0, 0.0), calls) for (tenant, pool), calls in sorted(waiting.items())
    ]
    return using + only_waiting


def _rate(rate: TenantRate, waiting: int) -> TenantRateOut:
    return TenantRateOut(
        tenant=rate.tenant,
        pool=rate.pool,
        calls_per_second=rate.calls_per_second,
        tokens_per_second=rate.tokens_per_second,
        waiting=waiting,
    )
