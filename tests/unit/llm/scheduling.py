"""Pools, calls and ends of calls for tests of the scheduler, and what a provider would count."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weft.controlplane.llm.call import (
    Admission,
    Attempt,
    Call,
    Decision,
    Ended,
    RateLimitNews,
    Reason,
    Refusal,
    Usage,
)
from weft.controlplane.llm.pool import PoolScheduler
from weft.controlplane.llm.pool_state import PoolState
from weft.model.model_pool import ModelPool, ModelPoolSpec
from weft.model.service_class import ServiceClass

NOW = 1_700_000_000.0

WINDOW = 60.0


class NoBudgets:
    """Everybody may spend what they like; what was told is kept, in tokens by call."""

    def __init__(self) -> None:
        self.reserved: dict[str, int] = {}
        self.settled: dict[str, int] = {}

    def reserve(self, call: Call, tokens: int, usd: float, now: float) -> Refusal | None:
        assert usd >= 0
        assert now >= NOW
        self.reserved[call.id] = tokens
        return None

    def settle(self, call_id: str, tokens: int, usd: float, now: float) -> None:
        assert usd >= 0
        assert now >= NOW
        self.settled[call_id] = tokens

    def release(self, call_id: str, now: float) -> None:
        self.settle(call_id, 0, 0.0, now)


def provider(name: str = "a", **fields: Any) -> dict[str, Any]:
    """As in a manifest; `limits` by their names in Python."""
    return {"name": name, "url": f"http://{name}.example/v1", **fields}


def pool(*providers: dict[str, Any], affinity: str = "prefix", **scheduling: Any) -> ModelPool:
    """A pool named `p` of these providers; one without limits if there are none."""
    spec = ModelPoolSpec.model_validate(
        {"providers": list(providers) or [provider()], "scheduling": scheduling, "affinity": affinity}
    )
    return ModelPool("p", spec)


def scheduler(some: ModelPool, state: PoolState | None = None, now: float = NOW) -> PoolScheduler:
    """A scheduler without budgets."""
    return PoolScheduler(some, NoBudgets(), state, now=now)


def call(call_id: str, tenant: str = "t", prompt: int = 10, output: int | None = 10, **fields: Any) -> Call:
    """A call of class standard."""
    fields = {"service_class": ServiceClass.STANDARD, "arrived": NOW, "sidecar": "s", **fields}
    return Call(
        id=call_id,
        pool="p",
        model="m",
        tenant=tenant,
        prompt_tokens=prompt,
        max_output_tokens=output,
        **fields,
    )


def ended(call_id: str | None, now: float, provider: str | None = "a", **fields: Any) -> Ended:
    """A call that was answered, and used ten tokens for prompt and answer each."""
    defaults: dict[str, Any] = {
        "status": 200,
        "started": now,
        "first_token": 0.1,
        "usage": Usage(10, 10),
        "broken": False,
        "cancelled": False,
        "estimated_tokens": 20,
        "sidecar": "s",
        "agent_type": "t",
        "tenant": "t",
        "model": "m",
        "streaming": True,
        "context": None,
        "key": None,
        "news": None,
    }
    return Ended(call_id=call_id, pool="p", provider=provider, ended=now, **{**defaults, **fields})


def failure(provider: str, now: float, status: int = 503, news: RateLimitNews | None = None) -> Attempt:
    """An attempt that failed."""
    return Attempt("p", provider, status, news, now)


def admitted(decisions: Iterable[Decision]) -> list[str]:
    """The ids of the calls that start."""
    return [each.call_id for each in decisions if isinstance(each, Admission)]


def places(decisions: Iterable[Decision]) -> list[str]:
    """Where the calls go that start."""
    return [each.provider for each in decisions if isinstance(each, Admission)]


def refused(decisions: Iterable[Decision]) -> dict[str, Reason]:
    """Why calls do not start, by id."""
    return {each.call_id: each.reason for each in decisions if isinstance(each, Refusal)}
