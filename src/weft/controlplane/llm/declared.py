"""The pools and budgets that are declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from weft.model.budget import BudgetSpec
from weft.model.model_pool import ModelPool, ModelPoolSpec
from weft.model.resource import AnyResource


@dataclass(frozen=True, slots=True)
class Declared:
    """All that calls to models are scheduled by."""

    pools: Mapping[str, ModelPool] = field(default_factory=dict)
    """By name."""
    budgets: tuple[tuple[str, BudgetSpec], ...] = ()


def declared_of(resources: Iterable[AnyResource]) -> Declared:
    """The pools and budgets among `resources`."""
    pools: dict[str, ModelPool] = {}
    budgets: list[tuple[str, BudgetSpec]] = []
    for each in resources:
        if isinstance(each.spec, ModelPoolSpec):
            pools[each.metadata.name] = ModelPool(each.metadata.name, each.spec)
        elif isinstance(each.spec, BudgetSpec):
            budgets.append((each.metadata.name, each.spec))
    return Declared(pools, tuple(sorted(budgets, key=lambda each: each[0])))
