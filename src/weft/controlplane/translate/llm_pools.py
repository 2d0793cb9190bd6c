"""What a caller may ask of which pool of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from weft.model.llm_wire import order_cluster
from weft.model.model_pool import Affinity, ModelPool, Preset, Provider


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a caller may not use a pool."""

    policy: str
    """The AccessPolicy that decided; empty where none did."""
    reason: str
    """In words."""


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The models as a caller has them. Who is treated alike shares one object, which equals no other."""

    pools: tuple[ModelPool, ...] = ()
    """Those it may use."""
    denied: tuple[tuple[ModelPool, Denial], ...] = ()
    """Those it may not."""
    budgeted: frozenset[str] = frozenset()
    """Names of pools that a Budget is about."""
    usable: frozenset[str] = frozenset()
    """Names in SDS of the keys that could be opened."""


NO_MODELS = Models()
"""There are no pools at all."""


def key_name(pool: str, provider: str) -> str:
    """The name in SDS of a provider's key, which nothing but the pool's clusters refers to."""
    return f"llm-key/{pool}/{provider}"


def renamed(pool: ModelPool, provider: Provider) -> str | None:
    """What the provider calls the model, where that is not what every agent calls it."""
    return None if provider.model is None or pool.models == (provider.model,) else provider.model


def is_adapted(pool: ModelPool) -> bool:
    """Whether requests are to be changed for any of its providers: in the model's name, or in their paths."""
    return any(renamed(pool, each) is not None or not _has_usual_paths(each) for each in pool.spec.providers)


def _has_usual_paths(provider: Provider) -> bool:
    return provider.preset is not Preset.AZURE and urlsplit(provider.base_url).path == "/v1"


def first_providers(pool: ModelPool) -> list[Provider]:
    """Those that calls on a lease go to at first."""
    return [each for each in pool.providers if each.order == pool.providers[0].order]


def weighted_orders(pool: ModelPool) -> list[tuple[str, int]]:
    """The clusters that calls on a lease go to, with their weights."""
    return [(order_cluster(pool.name, each.name), each.weight) for each in first_providers(pool)]


def by_model(models: Models) -> Mapping[str, Any]:
    """What the script of the listener knows of each model, JSON types only."""
    known: dict[str, Any] = {}
    for pool, denial in models.denied:
        known.update(dict.fromkeys(pool.models, _denied(pool, denial)))
    for pool in models.pools:
        known.update(dict.fromkeys(pool.models, _usable(pool, budgeted=pool.name in models.budgeted)))
    return known


def largest_body(pools: Iterable[ModelPool]) -> int:
    """Bytes of the largest request that any of `pools` takes."""
    return max((each.spec.max_body_bytes for each in pools), default=1024 * 1024)


def _denied(pool: ModelPool, denial: Denial) -> Mapping[str, Any]:
    return {
        "denied": f"accesspolicy/{denial.policy}",
        "message": f"this agent may not use pool '{pool.name}': {denial.reason}; see why with 'weft can'",
    }


def _usable(pool: ModelPool, *, budgeted: bool) -> Mapping[str, Any]:
    scheduling = pool.spec.scheduling
    counted = any(each.limits.concurrency is not None for each in pool.spec.providers)
    known = {
        "name": pool.name,
        "most": pool.spec.max_body_bytes,
        "assumed": scheduling.assumed_output_tokens,
        "asks": budgeted or counted or not scheduling.fast_path,
        "adapted": is_adapted(pool),
        "affine": pool.spec.affinity is Affinity.PREFIX and len(pool.spec.providers) > 1,
    }
    return known if scheduling.tenant_header is None else {**known, "tenant": scheduling.tenant_header}
