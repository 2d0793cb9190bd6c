"""What a call is expected to take of a pool: tokens, money, a place among those that may serve it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from weft.controlplane.llm.call import Call, Ended, Reason, Refusal, Usage
from weft.controlplane.llm.estimates import AnswerLengths
from weft.controlplane.llm.fairness import cost
from weft.controlplane.llm.pool_state import FlightRecord
from weft.controlplane.llm.providers import ProviderState
from weft.controlplane.llm.waiting import Waiter
from weft.model.model_pool import ModelPoolSpec
from weft.model.service_class import ServiceClass

_CERTAIN: Final = 3
"""A prompt that is taken to have n tokens (a quarter of its bytes) has n/3 at least."""

_PER: Final = 1_000_000
"""Tokens to which prices apply."""

_RANKS: Final = {each: each.rank for each in ServiceClass}

_DEFAULT: Final = (1.0, ServiceClass.STANDARD.rank)
"""Weight and best class of tenants of whom nothing is declared."""


class Terms:
    """What a pool's tenants get, and what is assumed of their calls."""

    def __init__(self, pool: ModelPoolSpec) -> None:
        """As it is declared."""
        self._assumed = pool.scheduling.assumed_output_tokens
        self._tenants = {
            each.name: (each.weight, each.service_class.rank) for each in pool.scheduling.tenants
        }
        self._prices = tuple({(each.prices.input, each.prices.output) for each in pool.providers})

    def weight(self, tenant: str) -> float:
        """Its share."""
        return self._tenants.get(tenant, _DEFAULT)[0]

    def highest_price(self, waiter: Waiter) -> float:
        """What the call costs at most, in US dollars: at the dearest of the providers."""
        prompt, output = waiter.call.prompt_tokens, waiter.output_tokens
        return max([prompt * of_input + output * of_output for of_input, of_output in self._prices]) / _PER

    def waiter(
        self, call: Call, number: int, now: float, lengths: AnswerLengths, providers: Sequence[ProviderState]
    ) -> Waiter:
        """The call as it waits: with what is to be reserved for it, and where it may go."""
        ceiling = self._tenants.get(call.tenant, _DEFAULT)[1]
        waiter = Waiter(
            call=call,
            number=number,
            since=now,
            rank=max(_RANKS[call.service_class], ceiling),
            lane=lane(call, providers),
        )
        self.estimate(waiter, lengths)
        return waiter

    def estimate(self, waiter: Waiter, lengths: AnswerLengths) -> None:
        """Reserve and charge for the call what experience says by now: it grows while calls wait."""
        call = waiter.call
        output, expected = lengths.expect(call.tenant, call.model, call.max_output_tokens, self._assumed)
        waiter.tokens = call.prompt_tokens + output
        waiter.output_tokens = output
        waiter.expected_output = expected
        waiter.cost = cost(call.prompt_tokens, expected, self.weight(call.tenant))


def lane(call: Call, providers: Sequence[ProviderState]) -> int:
    """The providers, as bits, whose context holds the call; if none does, those with the largest."""
    size = call.prompt_tokens + (call.max_output_tokens or 0)
    bits = largest_bits = 0
    largest = -1
    for each in providers:
        context = each.context_tokens
        if context is None or size <= context:
            bits |= each.bit
        elif context >= largest:
            largest_bits = (largest_bits if context == largest else 0) | each.bit
            largest = context
    # What is only estimated to be too large may fit.
    return bits or largest_bits


def too_large(call: Call, providers: Sequence[ProviderState]) -> Refusal | None:
    """A refusal, if the call certainly exceeds every provider's context."""
    largest = 0
    for each in providers:
        if each.context_tokens is None:
            return None
        largest = max(largest, each.context_tokens)
    output = call.max_output_tokens or 0
    if output <= largest and call.prompt_tokens // _CERTAIN + output <= largest:
        return None
    return Refusal(
        call.id,
        Reason.CONTEXT_LENGTH,
        f"the prompt (about {call.prompt_tokens} tokens) and an answer of up to {output} tokens exceed the "
        f"context of {largest} tokens of every provider of {call.pool!r}: shorten the prompt, or allow the "
        "answer less",
    )


def flight_record(waiter: Waiter, provider: str, now: float) -> FlightRecord:
    """The call as it is sent to `provider`."""
    call = waiter.call
    return FlightRecord(
        call_id=call.id,
        provider=provider,
        started=now,
        tokens=waiter.tokens,
        prompt_tokens=call.prompt_tokens,
        output_tokens=waiter.output_tokens,
        tenant=call.tenant,
        rank=waiter.rank,
        cost=waiter.cost,
        model=call.model,
        sidecar=call.sidecar,
        streaming=call.streaming,
    )


def used(end: Ended) -> Usage | None:
    """What a call that ended so has used. None: nobody knows, so that it may be all that was reserved."""
    if end.usage is not None:
        return end.usage
    nothing = end.provider is None or 400 <= end.status < 500
    return Usage(0, 0) if nothing else None
