"""Whatever happens in whatever order: limits hold at the provider, nobody is forgotten or decided twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.llm.scheduling import (
    NOW,
    WINDOW,
    NoBudgets,
    admitted,
    call,
    ended,
    failure,
    pool,
    provider,
    scheduler,
)

from weft.controlplane.llm.call import Admission, Decision, RateLimitNews, Refusal, Usage
from weft.controlplane.llm.pool import PoolScheduler
from weft.controlplane.llm.pool_state import PoolState
from weft.model.service_class import ServiceClass

# Without shrinking, which takes minutes: what fails is told as it was found.
FAST = settings(
    max_examples=50,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)

LATEST = 0.9
"""Seconds after its admission at which a call may reach the provider."""

REQUESTS, TOKENS, CONCURRENCY = 10, 500, 3

TIMEOUT = 600.0
"""Seconds that a call takes at most, by default."""

delays = st.sampled_from([0.0, LATEST])


@dataclass
class Sent:
    """A call as a provider sees it."""

    at: float
    tokens: int


@dataclass
class Providers:
    """What the providers count, in every sixty seconds and at once."""

    windowed: list[Sent]
    under_way: dict[str, str]

    def check(self) -> None:
        counted = sorted(self.windowed, key=lambda each: each.at)
        for number, last in enumerate(counted):
            window = [each for each in counted[: number + 1] if each.at > last.at - WINDOW]
            assert len(window) <= REQUESTS
            assert sum(each.tokens for each in window) <= TOKENS
        assert sum(where == "slots" for where in self.under_way.values()) <= CONCURRENCY


class Schedulers(RuleBasedStateMachine):
    """A pool of one provider with a window, and one with slots; its scheduler dies from time to time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.ids = count()
        self.pool = pool(
            provider("window", limits={"requestsPerMinute": REQUESTS, "tokensPerMinute": TOKENS}, weight=2),
            provider("slots", limits={"concurrency": CONCURRENCY}),
            maxWaiting=20,
            maxWait="20s",
            assumedOutputTokens=50,
        )
        self.budgets = NoBudgets()
        self.scheduler = PoolScheduler(self.pool, self.budgets, now=self.now)
        self.providers = Providers([], {})
        self.undecided: set[str] = set()
        self.owners: dict[str, str] = {}
        self.gone: set[str] = set()
        self.sent: dict[str, Sent] = {}

    @rule(
        asked=st.lists(
            st.tuples(
                st.sampled_from("abc"),
                st.sampled_from(list(ServiceClass)),
                st.integers(0, 100),
                st.none() | st.integers(0, 100),
                st.none() | st.none() | st.floats(0, 30),
            ),
            min_size=1,
            max_size=8,
        ),
        delay=delays,
    )
    def submit(
        self, asked: list[tuple[str, ServiceClass, int, int | None, float | None]], delay: float
    ) -> None:
        for tenant, rank, prompt, output, left in asked:
            call_id = str(next(self.ids))
            deadline = None if left is None else self.now + left
            each = call(
                call_id,
                tenant,
                prompt,
                output,
                service_class=rank,
                deadline=deadline,
                context=tenant,
                sidecar=tenant,
            )
            self.scheduler.submit(each, self.now)
            self.undecided.add(call_id)
            self.owners[call_id] = tenant
        self.decide(delay)

    @rule(delay=delays)
    def decide(self, delay: float) -> None:
        self.note(self.scheduler.decisions(self.now), delay)
        wakes_at = self.scheduler.wakes_at()
        assert wakes_at is not None or not self.undecided
        assert wakes_at is None or wakes_at > self.now

    def note(self, decisions: Sequence[Decision], delay: float) -> None:
        tokens = {each.call_id: each.tokens for each in self.scheduler.state().flights}
        for each in decisions:
            if each.call_id in self.gone:
                # It was refused before its sidecar went.
                assert isinstance(each, Refusal)
                self.gone.remove(each.call_id)
                continue
            assert each.call_id in self.undecided, "decided twice"
            self.undecided.remove(each.call_id)
            if isinstance(each, Admission):
                sent = self.sent[each.call_id] = Sent(self.now + delay, tokens[each.call_id])
                self.providers.under_way[each.call_id] = each.provider
                if each.provider == "window":
                    self.providers.windowed.append(sent)
        self.providers.check()

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.3, 1.0, 7.0, 31.0, 59.5]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.time_out()

    def time_out(self) -> None:
        """Nothing takes longer than the providers' timeout; that these ended is told by nobody."""
        for call_id in tuple(self.providers.under_way):
            if self.now > self.sent[call_id].at + TIMEOUT:
                del self.providers.under_way[call_id]

    @rule(delay=delays)
    def time_passes_until_it_wakes(self, delay: float) -> None:
        self.now = max(self.now, self.scheduler.wakes_at() or self.now)
        self.time_out()
        self.decide(delay)

    @rule(
        which=st.integers(0, 5),
        part=st.floats(0, 1),
        status=st.sampled_from([200, 200, 200, 400, 500]),
        delay=delays,
    )
    @precondition(lambda self: self.providers.under_way)
    def end(self, which: int, part: float, status: int, delay: float) -> None:
        call_id = self.running(which)
        where = self.providers.under_way.pop(call_id)
        sent = self.sent[call_id]
        usage = None if status == 500 else Usage(int(sent.tokens * part), 0)
        if usage is not None:
            sent.tokens = usage.tokens
        self.scheduler.ended(ended(call_id, self.now, where, status=status, usage=usage), self.now)
        self.decide(delay)

    @rule(which=st.integers(0, 5))
    def withdraw(self, which: int) -> None:
        waiting = sorted(self.undecided - set(self.sent))
        if waiting:
            call_id = waiting[which % len(waiting)]
            self.scheduler.withdraw(call_id, self.now)
            self.undecided.remove(call_id)

    @rule(which=st.integers(0, 5), delay=delays)
    @precondition(lambda self: self.providers.under_way)
    def fail_and_retry(self, which: int, delay: float) -> None:
        call_id = self.running(which)
        where = self.providers.under_way.pop(call_id)
        self.scheduler.attempt_failed(failure(where, self.now), self.now)
        self.scheduler.retry(call_id, None, "slots" if where == "window" else "window", self.now)
        self.undecided.add(call_id)
        self.decide(delay)

    def running(self, which: int) -> str:
        calls = list(self.providers.under_way)
        return calls[which % len(calls)]

    @rule(name=st.sampled_from(["window", "slots"]), after=st.none() | st.floats(0, 30))
    def push_back(self, name: str, after: float | None) -> None:
        news = None if after is None else RateLimitNews(retry_after=after)
        self.scheduler.attempt_failed(failure(name, self.now, 429, news), self.now)

    @rule()
    def lose_the_scheduler(self) -> None:
        """What waited is withdrawn by the callers, who ask anew; for us they are gone."""
        kept = self.scheduler.state().to_json()
        self.scheduler = PoolScheduler(self.pool, self.budgets, PoolState.from_json(kept), now=self.now)
        self.undecided.clear()

    @rule(tenant=st.sampled_from("abc"))
    def lose_a_sidecar(self, tenant: str) -> None:
        self.scheduler.sidecar_gone(tenant, self.now)
        gone = {each for each, owner in self.owners.items() if owner == tenant}
        self.gone |= gone & self.undecided
        self.undecided -= gone
        assert not [each for each in self.scheduler.state().flights if each.sidecar == tenant]
        for call_id in gone:
            self.providers.under_way.pop(call_id, None)

    @invariant()
    def it_knows_what_is_under_way(self) -> None:
        flights = {each.call_id for each in self.scheduler.state().flights}
        assert set(self.providers.under_way) <= flights

    def teardown(self) -> None:
        """When all have ended nothing is left."""
        for call_id, where in tuple(self.providers.under_way.items()):
            self.scheduler.ended(ended(call_id, self.now, where), self.now)
        for _ in range(3):
            self.now += 4000
            self.scheduler.decisions(self.now)
        figures = self.scheduler.figures(self.now)
        assert self.scheduler.state().flights == ()
        assert figures.waiting == ()
        for each in figures.providers:
            assert (each.under_way, each.requests_in_window, each.tokens_in_window) == (0, 0, 0)


TestSchedulers = Schedulers.TestCase
TestSchedulers.settings = FAST


@settings(FAST, max_examples=40)
@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.floats(0, 20)), min_size=5, max_size=40),
    slots=st.integers(1, 4),
    requests=st.integers(1, 10),
)
def test_nobody_waits_while_there_is_room(
    steps: list[tuple[bool, int, float]], slots: int, requests: int
) -> None:
    some = pool(
        provider("slots", limits={"concurrency": slots}, weight=3),
        provider("window", limits={"requestsPerMinute": requests}),
        provider("next", limits={"concurrency": 1}, order=1),
        maxWait="1h",
    )
    here, now = scheduler(some), NOW
    running: dict[str, str] = {}
    starts: list[float] = []
    for number, (ask, many, seconds) in enumerate(steps):
        now += seconds
        for each in range(many):
            if ask:
                here.submit(call(f"{number}-{each}", "ab"[each % 2]), now)
            elif running:
                call_id, where = running.popitem()
                here.ended(ended(call_id, now, where), now)
        for start in here.decisions(now):
            assert isinstance(start, Admission)
            running[start.call_id] = start.provider
            starts += [now] * (start.provider == "window")
        if here.figures(now).waiting:
            places = list(running.values())
            assert places.count("slots") == slots
            assert places.count("next") == 1
            # Buckets and margin: what is counted together leaves together.
            assert sum(each > now - WINDOW - 1.3 for each in starts) == requests


@settings(FAST, max_examples=40)
@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1)), min_size=30, max_size=120
    ),
    weight=st.sampled_from([1.0, 2.0, 4.0]),
    slots=st.integers(1, 6),
)
def test_backlogged_tenants_get_service_within_vtcs_bound(
    sizes: list[tuple[int, int, float]], weight: float, slots: int
) -> None:
    """By weight they differ by no more than the calls under way may have been misjudged."""
    some = pool(
        provider(limits={"concurrency": slots}),
        tenants=[{"name": "heavy", "weight": weight}],
        maxWaiting=100_000,
        maxWait="1h",
    )
    here, now = scheduler(some), NOW
    weights = {"heavy": weight, "light": 1.0}
    asked = {}
    for number, (prompt, output, part) in enumerate(sizes * 4):
        # The heavy one asks first, and ten times as often; both have something waiting all the time.
        for tenant, times in (("heavy", 3), ("light", 1)):
            for each in range(times):
                asked[f"{tenant}-{number}-{each}"] = (tenant, prompt, output, int(output * part))
    for tenant in weights:
        for call_id, (whose, prompt, output, _) in asked.items():
            if whose == tenant:
                here.submit(call(call_id, tenant, prompt, output), now)
    served = dict.fromkeys(weights, 0.0)
    running = admitted(here.decisions(now))
    worst = max(prompt + 2 * output for _, prompt, output, _ in asked.values())
    for _ in range(len(sizes)):
        now += 1
        call_id = running.pop(0)
        tenant, prompt, _, output = asked[call_id]
        served[tenant] += (prompt + 2 * output) / weights[tenant]
        here.ended(ended(call_id, now, tenant=tenant, usage=Usage(prompt, output)), now)
        running += admitted(here.decisions(now))
        assert abs(served["heavy"] - served["light"]) <= 2 * worst * (slots + 1)
