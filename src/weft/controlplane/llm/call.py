"""Calls to models as the scheduler sees them, and what it decides. Times are seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from weft.model.call_budget import BudgetLimit
from weft.model.service_class import ServiceClass


@dataclass(frozen=True, slots=True)
class Call:
    """A call that asks to be admitted. It holds nothing of what is said in it."""

    id: str
    pool: str
    model: str
    """As the agent asked for it."""
    tenant: str
    service_class: ServiceClass
    prompt_tokens: int
    """Estimated."""
    max_output_tokens: int | None
    """As the call bounds its answer; None: it does not."""
    arrived: float
    deadline: float | None = None
    """When the answer is of no use any more."""
    sidecar: str = ""
    """The SPIFFE ID of the sidecar it came through."""
    agent_type: str = ""
    """Of the agent that calls."""
    streaming: bool = False
    context: str | None = None
    key: str | None = None
    """On whose behalf it is made, where the agent says so."""
    prefix: str | None = None
    """A digest of how its prompt begins."""
    tree: str | None = None
    """The trace it belongs to, where that has a budget."""
    tree_tokens: int | None = None
    """What the whole tree may still use, as the call says."""
    tree_usd: float | None = None
    branches: tuple[BudgetLimit, ...] = ()
    """The branches of the tree that it is in and that have a budget of their own, outermost first."""


class Reason(StrEnum):
    """Why a call is refused; travels as the `code` of OpenAI's error format."""

    UNKNOWN_MODEL = "model_not_found"
    DENIED = "denied"
    CONTEXT_LENGTH = "context_length_exceeded"
    QUEUE_FULL = "queue_full"
    WAITED_TOO_LONG = "waited_too_long"
    DEADLINE = "deadline_exceeded"
    BUDGET = "budget_exceeded"
    NO_PROVIDER = "no_provider"
    NOT_SCHEDULED = "scheduler_unavailable"

    @property
    def status(self) -> int:
        """The HTTP status that goes with it."""
        return _STATUS[self]


_STATUS = {
    Reason.UNKNOWN_MODEL: 404,
    Reason.DENIED: 403,
    Reason.CONTEXT_LENGTH: 400,
    Reason.QUEUE_FULL: 429,
    Reason.WAITED_TOO_LONG: 429,
    Reason.DEADLINE: 504,
    Reason.BUDGET: 429,
    Reason.NO_PROVIDER: 503,
    Reason.NOT_SCHEDULED: 503,
}


@dataclass(frozen=True, slots=True)
class Admission:
    """The call starts now."""

    call_id: str
    provider: str
    """Where it goes first."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The call does not start."""

    call_id: str
    reason: Reason
    detail: str
    retry_after: float | None = None
    """Seconds after which it may be tried again."""


Decision = Admission | Refusal


@dataclass(frozen=True, slots=True)
class Usage:
    """What a provider says it used."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt's."""

    @property
    def tokens(self) -> int:
        """Of prompt and answer together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class RateLimitNews:
    """What a provider's headers say of its limits (`x-ratelimit-…`, `retry-after`)."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests: float | None = None
    """Seconds until it is as if nothing had been asked."""
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None
    retry_after: float | None = None
    """Seconds for which nothing is to be asked."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended, as the sidecar's Envoy reports it."""

    call_id: str | None
    """None: it was made on a lease."""
    pool: str
    provider: str | None
    """Who gave the answer; None: nobody was reached."""
    status: int
    """Of the answer to the agent; 0: none was given."""
    started: float
    ended: float
    first_token: float | None
    """Seconds from the attempt's start to the first byte of the answer."""
    usage: Usage | None
    """None: the answer did not say."""
    broken: bool
    """Whether the answer broke off midway, on the provider's side."""
    cancelled: bool
    """Whether the client left before the end."""
    estimated_tokens: int
    """As Envoy estimated them, prompt and answer together."""
    sidecar: str
    agent_type: str
    tenant: str
    model: str
    streaming: bool
    context: str | None
    key: str | None
    news: RateLimitNews | None


@dataclass(slots=True)
class LeasedEnds:
    """Calls on leases that ended well, said what they used, and are alike: added up, since they are many.

    What is told of them together is the same as if each had been told of by `Ended`.
    """

    pool: str
    provider: str
    sidecar: str
    agent_type: str
    tenant: str
    model: str
    context: str | None
    streaming: bool
    ended: float
    """When they were told of."""
    last_started: float = 0.0
    """When the last of them began."""
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompts'."""
    estimated_tokens: int = 0
    """As Envoy estimated them, prompts and answers together."""
    beyond: int = 0
    """Tokens that calls used beyond what Envoy had estimated of them."""
    seconds: float = 0.0
    """How long they took, all together."""
    begun: int = 0
    """Those of which is known when the answer began."""
    seconds_to_begin: float = 0.0
    """Of these, all together."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of each answer."""

    @property
    def tokens(self) -> int:
        """Of prompts and answers together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a provider that failed, after which Envoy tries the next."""

    pool: str
    provider: str
    status: int
    """0: it did not answer."""
    news: RateLimitNews | None
    ended: float


class Budgets(Protocol):
    """What admission asks before a call starts."""

    def reserve(self, call: Call, tokens: int, usd: float, now: float) -> Refusal | None:
        """Set aside what `call` may use at most. If that is too much: nothing, and a refusal."""
        ...

    def settle(self, call_id: str, tokens: int, usd: float, now: float) -> None:
        """Count what a call has used, in place of what was set aside for it."""
        ...

    def release(self, call_id: str, now: float) -> None:
        """Give back what was set aside for a call that used nothing."""
        ...
