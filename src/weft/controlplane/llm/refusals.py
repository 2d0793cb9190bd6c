"""Why calls are refused by a pool, in words, and when they may come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from weft.controlplane.llm.call import Reason, Refusal
from weft.controlplane.llm.providers import ProviderState
from weft.controlplane.llm.retries import Retrying
from weft.controlplane.llm.waiting import Waiter

_LEAST_RETRY_AFTER: Final = 1.0
_MOST_RETRY_AFTER: Final = 60.0
"""Seconds after which refused callers are told to come back."""


def hopeless(
    waiter: Waiter, providers: Sequence[ProviderState], max_wait: float, now: float
) -> Refusal | None:
    """A refusal, if no provider may be sent anything before the call has waited too long."""
    latest = now + max_wait
    for each in providers:
        if each.bit & waiter.lane and each.available_at() <= latest:
            return None
    able = _able(waiter, providers)
    until = min(each.available_at() for each in able)
    seconds = f"for another {until - now:.0f} s, longer than a call waits ({max_wait:g} s)"
    if all(now < each.circuit.until for each in able):
        detail = f"all providers of {waiter.call.pool!r} fail, and are sent nothing {seconds}"
        return Refusal(waiter.call.id, Reason.NO_PROVIDER, detail, _retry_after(until - now))
    detail = f"all providers of {waiter.call.pool!r} fail or ask to be spared {seconds}"
    return Refusal(waiter.call.id, Reason.WAITED_TOO_LONG, detail, _retry_after(until - now))


def too_late(waiter: Waiter, providers: Sequence[ProviderState], ahead: int, now: float) -> Refusal | None:
    """A refusal, if by the present estimate the call misses its deadline; `ahead`: so many go before it."""
    deadline = waiter.call.deadline
    if deadline is None:
        return None
    left = deadline - now
    if left <= 0:
        return Refusal(waiter.call.id, Reason.DEADLINE, f"its deadline passed {-left:.1f} s ago")
    able = _able(waiter, providers)
    wait = _wait(able, ahead, now)
    answer = min(each.pace.estimate(waiter.expected_output, waiter.call.streaming) for each in able)
    if wait + answer <= left:
        return None
    detail = (
        f"its deadline is in {left:.1f} s, but it would wait for about {wait:.1f} s, and its answer would "
        f"take about {answer:.1f} s"
    )
    return Refusal(waiter.call.id, Reason.DEADLINE, detail)


def waited_too_long(waiter: Waiter, providers: Sequence[ProviderState], now: float) -> Refusal:
    """It has waited as long as a call may."""
    able = _able(waiter, providers)
    waited = f"{now - waiter.since:.0f} s"
    after = _retry_after(min(each.available_at() for each in able) - now)
    if not any(each.circuit.permits(now) for each in able):
        detail = f"it waited {waited}, and all providers of {waiter.call.pool!r} fail"
        return Refusal(waiter.call.id, Reason.NO_PROVIDER, detail, after)
    detail = f"it waited {waited}, and no provider of {waiter.call.pool!r} had room for it"
    return Refusal(waiter.call.id, Reason.WAITED_TOO_LONG, detail, after)


def queue_full(waiter: Waiter, providers: Sequence[ProviderState], waiting: int, now: float) -> Refusal:
    """More wait than may."""
    detail = f"{waiting} calls to {waiter.call.pool!r} wait already, which is as many as may"
    after = _retry_after(_wait(_able(waiter, providers), waiting, now))
    return Refusal(waiter.call.id, Reason.QUEUE_FULL, detail, after)


def no_retry(
    retrying: Retrying, provider: ProviderState | None, room: bool, max_wait: float, now: float
) -> Refusal | None:
    """A refusal, if a call that failed elsewhere is not to go to `provider`, which may have room for it."""
    call_id, deadline = retrying.call_id, retrying.flight.deadline
    if provider is None or not provider.bit:
        return Refusal(call_id, Reason.NO_PROVIDER, f"the pool has no provider {retrying.provider!r}")
    name = provider.name
    if deadline is not None and now >= deadline:
        detail = f"its deadline passed while it waited for room at {name!r}"
        return Refusal(call_id, Reason.DEADLINE, detail)
    # There may be a next provider: Envoy knows, and asks.
    if now < provider.circuit.until:
        after = _retry_after(provider.circuit.until - now)
        return Refusal(
            call_id, Reason.NO_PROVIDER, f"the provider {name!r} fails, and is sent nothing", after
        )
    waited = now - retrying.since
    over = retrying.since + max_wait
    if not room and (now >= over or provider.cooling.until > over):
        detail = f"it waited {waited:.0f} s for {name!r}, which asks to be spared or has no room"
        return Refusal(call_id, Reason.WAITED_TOO_LONG, detail, _retry_after(provider.cooling.until - now))
    return None


def _able(waiter: Waiter, providers: Sequence[ProviderState]) -> list[ProviderState]:
    return [each for each in providers if each.bit & waiter.lane]


def _wait(able: Sequence[ProviderState], ahead: int, now: float) -> float:
    """Seconds until it is somebody's turn, by what the providers take in a second; 0 where nobody knows."""
    first = min(each.available_at() for each in able)
    rate = 0.0
    for each in able:
        if each.available_at() <= max(now, first):
            capacity = each.capacity()
            if capacity is None:
                return max(0.0, first - now)
            rate += capacity
    return max(0.0, first - now) + (ahead / rate if rate else 0.0)


def _retry_after(seconds: float) -> float:
    return min(max(seconds, _LEAST_RETRY_AFTER), _MOST_RETRY_AFTER)
