"""One pool's scheduler: a state machine without I/O and without a clock of its own.

Whoever drives it tells it what happens, with the time, and asks for `decisions` afterwards. Before these are
sent, `state` is written where a successor finds it.

The limits of providers hold whatever happens: what may have been used counts as used. Turns go by class, then
by fairness (`fairness`), then by arrival; and whoever's turn it is is waited for: nothing smaller slips past
it to the providers that it may go to, since it would never find room.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from weft.controlplane.llm import refusals
from weft.controlplane.llm.affinity import Affinities
from weft.controlplane.llm.call import (
    Admission,
    Attempt,
    Budgets,
    Call,
    Decision,
    Ended,
    LeasedEnds,
    Reason,
    Refusal,
    Usage,
)
from weft.controlplane.llm.estimates import AnswerLengths, Rate
from weft.controlplane.llm.fairness import cost
from weft.controlplane.llm.figures import PoolFigures, WaitingFigures
from weft.controlplane.llm.flights import Flight, Flights
from weft.controlplane.llm.leasing import Leasing, may_lease
from weft.controlplane.llm.limits import WINDOW
from weft.controlplane.llm.pool_state import PoolState
from weft.controlplane.llm.providers import ProviderState, choose, is_fault
from weft.controlplane.llm.reservations import Terms, flight_record, lane, too_large, used
from weft.controlplane.llm.retries import Retries, Retrying
from weft.controlplane.llm.usage import charge, price
from weft.controlplane.llm.usage import highest_price as dearest
from weft.controlplane.llm.waiting import RANKS, Waiter, WaitingCalls
from weft.model.llm_lease import Grant
from weft.model.model_pool import Affinity, ModelPool, Prices
from weft.model.service_class import ServiceClass

CONTENTION: Final = 2.0
"""Seconds for which a pool counts as contended after the last call that had to wait."""

_UNCOUNTED: Final = -1
"""Generation of calls that no circuit has counted: those on leases, and those that a predecessor admitted."""


class PoolScheduler:
    """Says when each call to one pool starts, and where."""

    def __init__(
        self, pool: ModelPool, budgets: Budgets, state: PoolState | None = None, *, now: float
    ) -> None:
        """Go on from `state`, or with nothing under way."""
        self._pool = pool
        self._budgets = budgets
        self._now = now
        self._known: dict[str, ProviderState] = {}
        """By name; those that are no longer declared, too, while something of them counts."""
        self._waiting = WaitingCalls()
        self._retries = Retries()
        self._flights = Flights()
        self._lengths = AnswerLengths()
        self._affinities = Affinities()
        self._leasing = Leasing(now)
        self._due: list[Decision] = []
        self._number = 0
        self._contended_until = 0.0
        self._admitted = 0
        self._refused: Counter[str] = Counter()
        self._request_rate = Rate(now)
        self._token_rate = Rate(now)
        self._configure(pool, state)
        self._restore(state)

    # What happens

    def reconfigure(self, pool: ModelPool, now: float) -> None:
        """Go on with `pool`, under the same name; what waits and what is under way stays so."""
        self._tick(now)
        self._configure(pool, None)
        self._waiting.assign(lambda each: lane(each.call, self._providers))

    def submit(self, call: Call, now: float) -> None:
        """A call asks to be admitted. One that is under way is admitted again, to the same provider."""
        now = self._tick(now)
        flight = self._flights.get(call.id)
        if flight is not None:
            self._due.append(Admission(call.id, flight.record.provider))
            return
        if call.id in self._waiting:
            return
        waiter = self._waiter(call, now)
        refusal = too_large(call, self._providers) or refusals.hopeless(
            waiter, self._providers, self._scheduling.max_wait, now
        )
        if refusal is None and call.deadline is not None:
            ahead = self._waiting.ahead(call.tenant, waiter.rank)
            refusal = refusals.too_late(waiter, self._providers, ahead, now)
        if refusal is not None:
            self._refuse(refusal)
        else:
            self._waiting.add(waiter)

    def retry(self, call_id: str, call: Call | None, provider: str, now: float) -> None:
        """A call that failed elsewhere asks for room at `provider`, before all others; on a lease: `call`."""
        now = self._tick(now)
        flight = self._flights.get(call_id) or self._taken_over(call_id, call, now)
        if flight is None:
            return
        self._leave(flight)
        self._retries.add(Retrying(flight, provider, now))

    def withdraw(self, call_id: str, now: float) -> None:
        """The caller left before it was told a decision: the call was not sent, and will not be."""
        now = self._tick(now)
        self._due = [each for each in self._due if each.call_id != call_id]
        self._waiting.remove(call_id)
        if self._forget(call_id) is not None:
            self._budgets.release(call_id, now)

    def delayed(self, call_id: str, now: float) -> None:
        """An admission is told only now, though it was decided a while ago: it took time to write it down.

        To be called if that was longer than half a second (`limits.MARGIN` has some for the way, too). The
        call counts from now on as well: its provider will count it later than was thought.
        """
        now = self._tick(now)
        flight = self._flights.get(call_id)
        provider = None if flight is None else self._known.get(flight.record.provider)
        if flight is not None and provider is not None:
            provider.window.charge(now, 1, flight.record.tokens)
            self._flights.remove(call_id)
            flight.record = flight.record._replace(started=now)
            self._flights.add(flight)

    def ended(self, end: Ended, now: float) -> None:
        """A call is over."""
        now = self._tick(now)
        served = self._known.get(end.provider or "")
        if served is not None:
            served.learn(end.news, end.status, now)
        if end.call_id is None:
            self._ended_on_lease(end, served, now)
            return
        self._waiting.remove(end.call_id)
        flight = self._forget(end.call_id)
        if flight is not None:
            self._correct(flight, end, served, now)
            self._learn(end, served, flight, now)
        self._settle(end, end.call_id, served, now)

    def ended_on_leases(self, ends: LeasedEnds, now: float) -> None:
        """Calls on leases are over, which ended well."""
        now = self._tick(now)
        served = self._known.get(ends.provider)
        if served is None:
            return
        served.answered(ends.last_started, _UNCOUNTED, ends.calls)
        self._lengths.learn_all(ends.tenant, ends.model, ends.lengths)
        served.pace.learn_all(ends)
        if ends.beyond:
            # As of the last: what was sent before leaves the provider's window sooner.
            served.window.charge(ends.last_started, 0, ends.beyond)

    def attempt_failed(self, attempt: Attempt, now: float) -> None:
        """A provider failed; each failed attempt is told once, the last one of a call, too."""
        now = self._tick(now)
        provider = self._known.get(attempt.provider)
        if provider is None:
            return
        provider.learn(attempt.news, attempt.status, now)
        if is_fault(attempt.status):
            provider.circuit.failed(now)

    def sidecar_gone(self, sidecar: str, now: float) -> None:
        """All its calls have ended."""
        now = self._tick(now)
        for waiter in [each for each in self._waiting if each.call.sidecar == sidecar]:
            self._waiting.remove(waiter.call.id)
        for flight in [each for each in self._flights if each.record.sidecar == sidecar]:
            self._lose(flight, now)

    def lost(self, call_id: str, now: float) -> None:
        """Nobody has heard of a call for too long: it has ended, and how will not be known."""
        now = self._tick(now)
        flight = self._flights.get(call_id)
        if flight is not None:
            self._lose(flight, now)

    def demand(self, holder: str, requests: int, tokens: int, now: float) -> None:
        """A sidecar sent so much on its lease, or asked for it."""
        self._leasing.demand(holder, requests, tokens, self._tick(now))

    # What follows

    def decisions(self, now: float) -> list[Decision]:
        """Admissions and refusals that are due, each once."""
        now = self._tick(now)
        for flight in self._flights.expired(now):
            self._lose(flight, now)
        if self._waiting or self._retries:
            self._decide(now)
        due, self._due = self._due, []
        return due

    def wakes_at(self) -> float | None:
        """When `decisions` may have something new though nothing happens."""
        if self._due:
            return self._now
        if not self._waiting and not self._retries:
            return None
        max_wait = self._scheduling.max_wait
        oldest, rising = self._waiting.oldest(), self._waiting.next_to_rise()
        deadline = self._waiting.next_deadline()
        times = [
            None if oldest is None else oldest.since + max_wait,
            None if rising is None else rising.since + max_wait / 2,
            None if deadline is None else deadline[0],
            self._retries.next_over(max_wait),
            self._flights.next_expires(),
            *(each.next_room(self._now) for each in self._providers),
        ]
        return min((each for each in times if each is not None), default=None)

    def contended(self) -> bool:
        """Whether calls wait, or did a moment ago."""
        return bool(self._waiting) or bool(self._retries) or self._now < self._contended_until

    def grants(self, now: float) -> dict[str, Grant]:
        """Leases for the next second, by holder; every one is new, and replaces what its holder had."""
        now = self._tick(now)
        order = self._providers[0].provider.order
        first = [each for each in self._providers if each.provider.order == order]
        if not self._scheduling.fast_path or self.contended() or not may_lease(first, now):
            return self._leasing.void()
        return self._leasing.grants(self._pool.name, first, now)

    def state(self) -> PoolState:
        """All that a successor needs."""
        return PoolState(
            tuple(each.record for each in self._flights),
            tuple(each.record() for each in self._known.values()),
        )

    def figures(self, now: float) -> PoolFigures:
        """What can be seen of it."""
        now = self._tick(now)
        oldest = self._waiting.oldest()
        return PoolFigures(
            pool=self._pool.name,
            contended=self.contended(),
            waiting=self._waiting_figures(now),
            longest_wait=0.0 if oldest is None else now - oldest.since,
            providers=tuple(each.figures(now) for each in self._providers),
            leases=self._leasing.figures(),
            admitted=self._admitted,
            refused=dict(self._refused),
            requests_per_second=self._request_rate.per_second(now),
            tokens_per_second=self._token_rate.per_second(now),
        )

    # Deciding

    def _decide(self, now: float) -> None:
        max_wait = self._scheduling.max_wait
        self._refuse_past_deadline(now)
        self._waiting.rise(now, max_wait / 2)
        closed = self._decide_retries(now)
        for rank in range(RANKS):
            closed = self._admit(rank, closed, now)
        while (oldest := self._waiting.oldest()) is not None and now >= oldest.since + max_wait:
            self._waiting.remove(oldest.call.id)
            self._refuse(refusals.waited_too_long(oldest, self._providers, now))
        while len(self._waiting) > self._scheduling.max_waiting:
            waiter = self._waiting.too_many()
            self._waiting.remove(waiter.call.id)
            self._refuse(refusals.queue_full(waiter, self._providers, len(self._waiting), now))
        if self._waiting or self._retries:
            self._contended_until = now + CONTENTION

    def _refuse_past_deadline(self, now: float) -> None:
        while (first := self._waiting.next_deadline()) is not None and now >= first[0]:
            self._waiting.remove(first[1])
            self._refuse(Refusal(first[1], Reason.DEADLINE, "its deadline passed while it waited"))

    def _admit(self, rank: int, closed: int, now: float) -> int:
        """Admit what can be of a class. Returns the providers that are closed to lesser classes."""
        while (waiter := self._waiting.first(rank, closed)) is not None:
            if waiter.since < now:
                self._terms.estimate(waiter, self._lengths)
            preferred = self._affinities.preferred(waiter.call, now) if self._prefers else None
            provider = choose(self._providers, waiter.lane & ~closed, waiter.tokens, preferred, now)
            if provider is None:
                closed |= waiter.lane
                continue
            late = refusals.too_late(waiter, self._providers, 0, now) if waiter.call.deadline else None
            refusal = late or self._reserve(waiter)
            if refusal is not None:
                self._waiting.remove(waiter.call.id)
                self._refuse(refusal)
            else:
                contested = self._waiting.admit(waiter)
                self._start(waiter, provider, contested, now)
        return closed

    def _reserve(self, waiter: Waiter) -> Refusal | None:
        usd = self._terms.highest_price(waiter)
        return self._budgets.reserve(waiter.call, waiter.tokens, usd, self._now)

    def _start(self, waiter: Waiter, provider: ProviderState, contested: bool, now: float) -> None:
        call = waiter.call
        record = flight_record(waiter, provider.name, now)
        generation = provider.sent(waiter.tokens, now)
        lifetime = provider.lifetime(call.streaming)
        flight = Flight(record, lifetime, generation, call.deadline, corrected=contested)
        self._flights.add(flight)
        if self._prefers:
            self._affinities.sent(call, provider.name, now)
        self._admitted_to(call.id, provider.name, waiter.tokens)

    def _admitted_to(self, call_id: str, provider: str, tokens: int) -> None:
        self._admitted += 1
        self._request_rate.count(self._now, 1)
        self._token_rate.count(self._now, tokens)
        self._due.append(Admission(call_id, provider))

    def _refuse(self, refusal: Refusal) -> None:
        self._refused[refusal.reason.value] += 1
        self._due.append(refusal)

    # Calls that failed at one provider

    def _decide_retries(self, now: float) -> int:
        """Send on what can be. Returns the providers that are closed to all others: they are waited for."""
        closed = 0
        for retrying in self._retries:
            provider = self._known.get(retrying.provider)
            bit = provider.bit & ~closed if provider else 0
            room = (
                bool(bit) and provider is not None and provider.has_room(retrying.flight.record.tokens, now)
            )
            refusal = refusals.no_retry(retrying, provider, room, self._scheduling.max_wait, now)
            if refusal is not None:
                self._retries.remove(retrying.call_id)
                self._refuse(refusal)
            elif room and provider is not None:
                self._retries.remove(retrying.call_id)
                self._send_on(retrying.flight, provider, now)
            else:
                closed |= bit
        return closed

    def _send_on(self, flight: Flight, provider: ProviderState, now: float) -> None:
        # Anew: among those of its lifetime it is the youngest.
        self._flights.remove(flight.record.call_id)
        flight.record = flight.record._replace(provider=provider.name, started=now)
        flight.lifetime = provider.lifetime(flight.record.streaming)
        flight.generation = provider.sent(flight.record.tokens, now)
        flight.held = True
        self._flights.add(flight)
        self._admitted_to(flight.record.call_id, provider.name, flight.record.tokens)

    def _taken_over(self, call_id: str, call: Call | None, now: float) -> Flight | None:
        """A call that began on a lease is scheduled from now on. None: it is refused."""
        if call is None:
            detail = "nothing is known of the call, which asks for another provider"
            self._refuse(Refusal(call_id, Reason.NOT_SCHEDULED, detail))
            return None
        waiter = self._waiter(call, now)
        refusal = self._reserve(waiter)
        if refusal is not None:
            self._refuse(refusal)
            return None
        record = flight_record(waiter, "", now)._replace(call_id=call_id, cost=0.0)
        lifetime = self._providers[0].lifetime(call.streaming)
        flight = Flight(record, lifetime, _UNCOUNTED, call.deadline, held=False)
        self._flights.add(flight)
        return flight

    # Calls that are over

    def _leave(self, flight: Flight) -> None:
        """It leaves its place at its provider."""
        provider = self._known.get(flight.record.provider)
        if flight.held and provider is not None:
            provider.over(flight.generation)
        flight.held = False

    def _forget(self, call_id: str) -> Flight | None:
        self._retries.remove(call_id)
        flight = self._flights.remove(call_id)
        if flight is not None:
            self._leave(flight)
        return flight

    def _lose(self, flight: Flight, now: float) -> None:
        """Nobody will hear how it ended: it counts as having used all that was reserved."""
        record = flight.record
        self._forget(record.call_id)
        provider = self._known.get(record.provider)
        prices = Prices() if provider is None else provider.provider.prices
        usd = price(prices, Usage(record.prompt_tokens, record.output_tokens))
        self._budgets.settle(record.call_id, record.tokens, usd, now)

    def _correct(self, flight: Flight, end: Ended, served: ProviderState | None, now: float) -> None:
        """Count what the call used, if that is known, in place of what was reserved for it."""
        record, usage = flight.record, used(end)
        if usage is None:
            return
        if end.provider in {None, record.provider}:
            sent = self._known.get(record.provider)
            if sent is not None:
                sent.window.correct(record.started, usage.tokens - record.tokens)
        elif served is not None:
            served.window.charge(now, 0, usage.tokens)
        if flight.corrected:
            weight = self._terms.weight(record.tenant)
            actual = cost(usage.prompt_tokens, usage.completion_tokens, weight)
            self._waiting.charge(record.rank, record.tenant, actual - record.cost)

    def _learn(self, end: Ended, served: ProviderState | None, flight: Flight, now: float) -> None:
        at_home = served is not None and served.name == flight.record.provider
        generation = flight.generation if at_home else _UNCOUNTED
        self._learn_of(end, served, generation, flight.record.started, now)

    def _learn_of(
        self, end: Ended, served: ProviderState | None, generation: int, started: float, now: float
    ) -> None:
        """What the end of a call that was sent at `started` says of its provider, and of answers."""
        if served is None or end.status == 429 or is_fault(end.status):
            return  # That it failed was told by attempt_failed.
        if end.broken:
            served.circuit.failed(now)
            return
        if end.cancelled and end.first_token is None:
            return
        served.answered(started, generation)
        usage = end.usage
        if usage is None or end.cancelled or end.status >= 300:
            return
        self._lengths.learn(end.tenant, end.model, usage.completion_tokens)
        duration = max(0.0, end.ended - started)
        served.pace.learn(duration, end.first_token, usage.completion_tokens, usage.tokens, end.streaming)

    def _ended_on_lease(self, end: Ended, served: ProviderState | None, now: float) -> None:
        self._learn_of(end, served, _UNCOUNTED, end.started, now)
        more = 0 if end.usage is None else end.usage.tokens - end.estimated_tokens
        if served is not None and more > 0 and now - end.started < WINDOW:
            served.window.charge(end.started, 0, more)

    def _settle(self, end: Ended, call_id: str, served: ProviderState | None, now: float) -> None:
        prices = Prices() if served is None else served.provider.prices
        counted = charge(end)
        if counted.usage is not None:
            self._budgets.settle(call_id, counted.tokens, price(prices, counted.usage), now)
        elif counted.tokens:
            self._budgets.settle(call_id, counted.tokens, dearest(prices, counted.tokens), now)
        else:
            self._budgets.release(call_id, now)

    # The pool

    def _tick(self, now: float) -> float:
        """The time: it does not go back, whatever the machine's clock does."""
        self._now = max(self._now, now)
        return self._now

    def _waiter(self, call: Call, now: float) -> Waiter:
        self._number += 1
        return self._terms.waiter(call, self._number, now, self._lengths, self._providers)

    def _configure(self, pool: ModelPool, state: PoolState | None) -> None:
        self._pool = pool
        self._scheduling = pool.spec.scheduling
        self._terms = Terms(pool.spec)
        self._prefers = pool.spec.affinity is Affinity.PREFIX and len(pool.spec.providers) > 1
        records = {} if state is None else {each.name: each for each in state.providers}
        for each in self._known.values():
            each.bit = 0
        for number, provider in enumerate(pool.providers):
            known = self._known.get(provider.name)
            if known is None:
                known = self._known[provider.name] = ProviderState(provider, records.get(provider.name))
            else:
                known.declare(provider)
            known.bit = 1 << number
        self._providers = tuple(self._known[each.name] for each in pool.providers)
        for name in [name for name, each in self._known.items() if not each.bit and each.is_idle(self._now)]:
            del self._known[name]

    def _restore(self, state: PoolState | None) -> None:
        """Take over what a predecessor admitted, by whose clock it may be later than by this one."""
        for known in self._known.values():
            known.window.not_beyond(self._now)
        for record in () if state is None else sorted(state.flights, key=lambda each: each.started):
            provider = self._known.get(record.provider)
            if provider is not None:
                provider.under_way += 1
            # Not that of a stream: how it ended may have been told to the predecessor.
            lifetime = (provider or self._providers[0]).lifetime(streaming=False)
            since = record._replace(started=min(record.started, self._now))
            held = provider is not None
            self._flights.add(Flight(since, lifetime, _UNCOUNTED, held=held, corrected=False))

    def _waiting_figures(self, now: float) -> tuple[WaitingFigures, ...]:
        counts: Counter[tuple[str, int]] = Counter()
        since: dict[tuple[str, int], float] = {}
        for each in self._waiting:
            key = (each.call.tenant, each.rank)
            counts[key] += 1
            since.setdefault(key, each.since)
        classes = tuple(ServiceClass)
        return tuple(
            WaitingFigures(tenant, classes[rank], count, now - since[tenant, rank])
            for (tenant, rank), count in sorted(counts.items(), key=lambda each: (each[0][1], each[0][0]))
        )
