"""Budget: how much may be spent on models, by whom, in which time."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from weft.model.spec import MAX_ITEMS, Name, ShortText, Spec, Text


class BudgetScope(StrEnum):
    """Who shares one budget."""

    MESH = "mesh"
    """Everybody."""
    TENANT = "tenant"
    """Each tenant (agent type, or value of a pool's tenantHeader) has one of its own."""
    KEY = "key"
    """Each value of the request header `x-weft-key` has one of its own."""
    CONTEXT = "context"
    """Each context (`x-weft-context`) has one of its own."""


class Period(StrEnum):
    """After which time a budget begins anew, in UTC."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"
    """Never."""


class BudgetSpec(Spec):
    """A budget, in tokens or money or both: what a call may use at most is reserved before it starts."""

    description: Text = ""
    scope: BudgetScope = BudgetScope.TENANT
    period: Period = Period.DAY
    tokens: Annotated[int, Field(ge=1, le=10**15)] | None = None
    """Tokens of prompts and answers together."""
    usd: Annotated[float, Field(gt=0, le=10**12, allow_inf_nan=False)] | None = None
    """US dollars, by the providers' prices."""
    pools: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_ITEMS)] | None = None
    """ModelPools it is about; by default all."""
    only: Annotated[tuple[ShortText, ...], Field(min_length=1, max_length=MAX_ITEMS)] | None = None
    """Tenants, keys or contexts (as `scope` says) it is about; by default each."""
