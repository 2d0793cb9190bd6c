"""Whatever happens to a ledger, and whenever its process dies: nobody spends more than there is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.controlplane.llm.call import Call
from weft.controlplane.llm.ledger import LONGEST_CALL, BudgetLedger
from weft.controlplane.llm.ledger_records import LedgerRecord
from weft.model.budget import BudgetScope, BudgetSpec, Period
from weft.model.service_class import ServiceClass

LIMIT = 100
USD_LIMIT = 1.0
TREE_LIMIT = 120

BUDGETS = [
    ("tenant", BudgetSpec(period=Period.TOTAL, tokens=LIMIT, usd=USD_LIMIT)),
    ("mesh", BudgetSpec(scope=BudgetScope.MESH, period=Period.TOTAL, tokens=2 * LIMIT)),
    ("key", BudgetSpec(scope=BudgetScope.KEY, period=Period.TOTAL, tokens=LIMIT)),
]

events = st.one_of(
    st.tuples(
        st.just("ask"), st.integers(0, 2), st.sampled_from([None, "k"]), st.booleans(), st.integers(0, 70)
    ),
    st.tuples(st.just("settle"), st.integers(0, 20), st.floats(0.0, 1.0)),
    st.tuples(st.just("release"), st.integers(0, 20)),
    st.tuples(st.just("commit")),
    st.tuples(st.just("crash")),
    st.tuples(st.just("wait"), st.sampled_from([1.0, LONGEST_CALL])),
    st.tuples(st.just("tidy")),
)


@dataclass
class Started:
    """A call that was told that it may start."""

    groups: tuple[str, ...]
    tokens: int
    """What it may have used: at first the most it may, in the end what it has."""


@dataclass
class World:
    """A ledger, what was written of it, and what calls really use."""

    ledger: BudgetLedger = field(default_factory=lambda: BudgetLedger(BUDGETS))
    written: dict[str, bytes] = field(default_factory=dict)
    asked: dict[str, Started] = field(default_factory=dict)
    """Admitted, but not yet told so."""
    running: dict[str, Started] = field(default_factory=dict)
    used: list[Started] = field(default_factory=list)
    now: float = 1000.0
    count: int = 0

    def ask(self, tenant: int, key: str | None, tree: bool, tokens: int) -> None:
        self.count += 1
        name = f"t{tenant}"
        call = Call(
            f"c{self.count}",
            "pool",
            "model",
            name,
            ServiceClass.STANDARD,
            1,
            1,
            self.now,
            key=key,
            tree="tree" if tree else None,
            tree_tokens=TREE_LIMIT if tree else None,
        )
        before = taken(self.ledger, self.now)
        if self.ledger.reserve(call, tokens, tokens / 100, self.now) is None:
            groups = (name, "mesh", key or "(none)", *(["tree"] if tree else []))
            self.asked[call.id] = Started(groups, tokens)
        else:
            assert taken(self.ledger, self.now) == before, "a refused call leaves nothing behind"
        self.check()

    def commit(self) -> None:
        """Write, then tell those who asked."""
        self.written |= {each.key: each.to_json() for each in self.ledger.changed()}
        self.running |= self.asked
        self.asked.clear()

    def settle(self, number: int, share: float) -> None:
        if not self.running:
            return
        call_id = list(self.running)[number % len(self.running)]
        started = self.running.pop(call_id)
        started.tokens = int(started.tokens * share)
        self.used.append(started)
        self.ledger.settle(call_id, started.tokens, started.tokens / 100, self.now)
        self.ledger.settle(call_id, 10**6, 1e6, self.now)

    def release(self, number: int) -> None:
        """A call that was withdrawn before it was told, or one that used nothing."""
        if self.asked and number % 2:
            call_id, _ = self.asked.popitem()
            self.ledger.release(call_id, self.now)
            return
        self.settle(number, 0.0)

    def crash(self) -> None:
        self.ledger = BudgetLedger(BUDGETS, [LedgerRecord.from_json(each) for each in self.written.values()])
        self.asked.clear()  # nobody was told

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if seconds >= LONGEST_CALL:
            self.used += self.running.values()  # and nobody will hear of their end
            self.running.clear()

    def tidy(self) -> None:
        for key in self.ledger.expired(self.now):
            self.written.pop(key, None)

    def check(self) -> None:
        """No group of calls used more than there is, and the ledger knows of all that it may have used."""
        sums: dict[str, int] = defaultdict(int)
        for each in (*self.running.values(), *self.used, *self.asked.values()):
            for group in each.groups:
                sums[group] += each.tokens
        known = taken(self.ledger, self.now)
        for group, tokens in sums.items():
            if group == "tree":
                continue  # forgotten after an hour
            assert known.get(group, 0) >= tokens
            assert tokens <= (2 * LIMIT if group == "mesh" else LIMIT)
        assert all(tokens <= (2 * LIMIT if group == "mesh" else LIMIT) for group, tokens in known.items())


def taken(ledger: BudgetLedger, now: float) -> dict[str, int]:
    """Tokens spent and set aside, by whom."""
    return {
        each.value or "mesh": tokens
        for each in ledger.figures(now)
        if each.value is not None and (tokens := each.spent_tokens + each.set_aside_tokens)
    }


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(st.lists(events, max_size=60))
def test_never_more_is_admitted_than_there_is_and_no_crash_loses_what_was_used(
    happening: list[tuple[str, *tuple[object, ...]]],
) -> None:
    world = World()
    for name, *arguments in happening:
        getattr(world, name)(*arguments)
    world.check()


@settings(max_examples=50, deadline=None, database=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0.0, 1.0)), max_size=40))
def test_without_a_crash_it_is_exact_to_the_billionth_of_a_dollar(calls: list[tuple[int, float]]) -> None:
    ledger = BudgetLedger([("ever", BudgetSpec(period=Period.TOTAL, usd=10**6))])
    for number, (tokens, usd) in enumerate(calls):
        call = Call(f"c{number}", "pool", "model", "t", ServiceClass.STANDARD, 1, 1, 0.0)
        assert ledger.reserve(call, 2 * tokens, 2 * usd, 1.0) is None
        ledger.settle(call.id, tokens, usd, 2.0)
    (figures,) = ledger.figures(3.0)
    assert figures.spent_tokens == sum(tokens for tokens, _ in calls)
    assert figures.set_aside_tokens == 0
    assert figures.set_aside_usd == 0.0
    assert figures.spent_usd == pytest.approx(sum(round(usd * 1e9) for _, usd in calls) / 1e9, rel=1e-12)
