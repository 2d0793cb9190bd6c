"""The ledger of budgets: what it sets aside, what it refuses, and what it says about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from weft.controlplane.llm import ledger as ledger_module
from weft.controlplane.llm.account import Account
from weft.controlplane.llm.call import Call, Reason, Refusal
from weft.controlplane.llm.call_trees import TREE_REST, CallTrees
from weft.controlplane.llm.ledger import LONGEST_CALL, NONE, OTHERS, BudgetLedger
from weft.controlplane.llm.ledger_records import LedgerRecord, TreeAccount
from weft.controlplane.llm.periods import began, ends
from weft.model.budget import BudgetScope, BudgetSpec, Period
from weft.model.call_budget import BudgetLimit
from weft.model.service_class import ServiceClass

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
MIDNIGHT = NOON + 12 * 3600.0

CALL = Call("c", "pool", "model", "planner", ServiceClass.STANDARD, 10, 100, NOON)

DAILY = ("daily", BudgetSpec(tokens=1000))


def call(number: int, **changes: object) -> Call:
    return replace(CALL, id=f"c{number}", **changes)  # type: ignore[arg-type]


def refusal(found: Refusal | None) -> Refusal:
    assert found is not None
    assert found.reason is Reason.BUDGET
    return found


def taken(ledger: BudgetLedger, budget: str, value: str) -> tuple[int, int]:
    """Tokens spent, and set aside."""
    found = next(each for each in ledger.figures(NOON) if (each.budget, each.value) == (budget, value))
    return found.spent_tokens, found.set_aside_tokens


def successor(ledger: BudgetLedger, *budgets: tuple[str, BudgetSpec]) -> BudgetLedger:
    """A ledger that knows what `ledger` has written, having gone through its bytes."""
    return BudgetLedger(budgets, [LedgerRecord.from_json(each.to_json()) for each in ledger.changed()])


def test_what_a_call_may_use_is_set_aside_until_it_is_settled_by_what_it_used() -> None:
    ledger = BudgetLedger([DAILY])
    assert ledger.reserve(call(1), 600, 0.0, NOON) is None
    assert ledger.reserve(call(1), 600, 0.0, NOON) is None, "the same call, once more"
    refused = refusal(ledger.reserve(call(2), 600, 0.0, NOON))
    for part in (
        "daily",
        "'planner'",
        "400 tokens of 1000",
        "600 tokens are set aside",
        "2026-11-22 00:00 UTC",
    ):
        assert part in refused.detail
    assert refused.retry_after == 1.0, "once the first is settled there is enough"
    ledger.settle("c1", 150, 0.0, NOON)
    ledger.settle("c1", 150, 0.0, NOON)
    ledger.settle("unknown", 150, 0.0, NOON)
    assert taken(ledger, "daily", "planner") == (150, 0)
    assert ledger.reserve(call(2), 600, 0.0, NOON) is None
    ledger.release("c2", NOON)
    assert taken(ledger, "daily", "planner") == (150, 0)


def test_a_refusal_tells_when_there_is_enough_again() -> None:
    ledger = BudgetLedger([DAILY, ("ever", BudgetSpec(period=Period.TOTAL, usd=0.5))])
    ledger.reserve(call(1), 900, 0.1, NOON)
    ledger.settle("c1", 900, 0.1, NOON)
    assert refusal(ledger.reserve(call(2), 200, 0.0, NOON)).retry_after == MIDNIGHT - NOON
    never = refusal(ledger.reserve(call(3), 2000, 0.0, NOON))
    assert never.retry_after is None
    assert "shorter answer" in never.detail
    money = refusal(ledger.reserve(call(4), 1, 0.45, NOON))
    assert money.retry_after is None
    assert "0.4 USD of 0.5 USD left" in money.detail
    assert ledger.reserve(call(5), 1000, 0.1, MIDNIGHT) is None, "a new day"


def test_a_call_is_set_aside_for_in_all_budgets_or_in_none() -> None:
    mesh = ("mesh", BudgetSpec(scope=BudgetScope.MESH, tokens=10_000))
    ledger = BudgetLedger([mesh, DAILY])
    refusal(ledger.reserve(call(1), 1001, 0.0, NOON))
    assert taken(ledger, "mesh", "") == (0, 0)
    ledger.reserve(call(2), 1000, 0.0, NOON)
    ledger.reserve(call(3, tenant="coder"), 700, 0.0, NOON)
    assert taken(ledger, "mesh", "") == (0, 1700)


def test_a_budget_is_about_its_pools_and_those_it_names() -> None:
    spec = BudgetSpec(scope=BudgetScope.KEY, tokens=10, pools=("pool",), only=("alice",))
    ledger = BudgetLedger([("alice", spec)])
    assert ledger.concerns("pool")
    assert not ledger.concerns("another")
    assert ledger.reserve(call(1, key="bob"), 100, 0.0, NOON) is None
    assert ledger.reserve(call(2, pool="another", key="alice"), 100, 0.0, NOON) is None
    refusal(ledger.reserve(call(3, key="alice"), 100, 0.0, NOON))


def test_calls_that_name_no_key_share_one_account() -> None:
    ledger = BudgetLedger([("keys", BudgetSpec(scope=BudgetScope.KEY, tokens=100))])
    assert ledger.reserve(call(1), 60, 0.0, NOON) is None
    refusal(ledger.reserve(call(2), 60, 0.0, NOON))
    assert ledger.reserve(call(3, key="alice"), 60, 0.0, NOON) is None
    assert taken(ledger, "keys", NONE) == (0, 60)


def test_keys_beyond_so_many_share_one_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_ACCOUNTS", 2)
    ledger = BudgetLedger([("keys", BudgetSpec(scope=BudgetScope.KEY, tokens=100))])
    for number in range(4):
        ledger.reserve(call(number, key=f"key-{number}"), 60, 0.0, NOON)
    assert taken(ledger, "keys", OTHERS) == (0, 60)
    refusal(ledger.reserve(call(9, key="key-9"), 60, 0.0, NOON))


def test_a_call_tree_has_the_least_that_any_of_its_calls_said() -> None:
    ledger = BudgetLedger([])
    tree = "ab" * 16
    assert ledger.reserve(call(1, tree=tree), 10**9, 0.0, NOON) is None, "nobody has said anything yet"
    assert ledger.reserve(call(2, tree=tree, tree_tokens=1000, tree_usd=1.0), 600, 0.1, NOON) is None
    refused = refusal(ledger.reserve(call(3, tree=tree), 600, 0.1, NOON))
    assert "x-weft-budget" in refused.detail
    assert ledger.reserve(call(4, tree=tree, tree_tokens=5000), 400, 0.1, NOON) is None
    follows = successor(ledger)
    for each in ("c2", "c4"):
        follows.settle(each, 10, 0.0, NOON)
    refusal(follows.reserve(call(5, tree=tree, tree_tokens=500), 481, 0.1, NOON))
    refusal(follows.reserve(call(6, tree=tree), 481, 0.1, NOON))
    assert follows.reserve(call(7, tree=tree), 480, 0.1, NOON) is None


def test_a_tree_is_kept_for_an_hour_after_its_last_call() -> None:
    ledger = BudgetLedger([])
    ledger.reserve(call(1, tree="t", tree_tokens=100), 100, 0.0, NOON)
    ledger.settle("c1", 100, 0.0, NOON + 600.0)
    (record,) = ledger.changed()
    assert ledger.expired(NOON + TREE_REST) == []
    assert ledger.expired(NOON + 601.0 + TREE_REST) == [record.key]
    assert ledger.changed() == []


def test_a_branch_has_a_budget_of_its_own_within_that_of_its_tree() -> None:
    ledger = BudgetLedger([])
    one, other = BudgetLimit("one", 500), BudgetLimit("other", 500, 0.5)
    tree = {"tree": "ab" * 16, "tree_tokens": 800}
    assert ledger.reserve(call(1, **tree, branches=(one,)), 400, 0.0, NOON) is None
    refused = refusal(ledger.reserve(call(2, **tree, branches=(one,)), 200, 0.0, NOON))
    assert "branch 'one' of the call tree abab" in refused.detail
    assert "has 100 tokens of 500 tokens left" in refused.detail
    refused = refusal(ledger.reserve(call(3, **tree, branches=(other,)), 450, 0.0, NOON))
    assert "(x-weft-budget) of the call tree abab" in refused.detail, "the tree has 400 left"
    refusal(ledger.reserve(call(4, **tree, branches=(other,)), 10, 0.6, NOON))
    assert ledger.reserve(call(5, **tree, branches=(one, BudgetLimit("within", 50))), 50, 0.0, NOON) is None
    ledger.settle("c1", 100, 0.0, NOON)
    follows = successor(ledger)
    refusal(follows.reserve(call(6, **tree, branches=(one,)), 351, 0.0, NOON))
    refusal(follows.reserve(call(7, **tree, branches=(BudgetLimit("within", 900),)), 1, 0.0, NOON))
    assert follows.reserve(call(8, **tree, branches=(one,)), 350, 0.0, NOON) is None
    assert follows.reserve(call(9, tree="cd" * 16, branches=(one,)), 500, 0.0, NOON) is None, "another tree"


def test_of_too_many_trees_those_go_that_rested_longest() -> None:
    trees = CallTrees(most=2)
    for number, name in enumerate(("a", "b", "c", "a")):
        trees.accounts(call(number, tree=name, tree_tokens=1), NOON + number)
    gone = trees.forget(NOON + 5.0)
    assert [isinstance(each, Account) for each in gone] == [True]
    assert trees.get(TreeAccount("b")) is None
    assert trees.get(TreeAccount("a")) is not None


def test_what_is_never_heard_of_again_counts_as_spent_as_much_as_was_set_aside() -> None:
    ledger = BudgetLedger([("ever", BudgetSpec(period=Period.TOTAL, tokens=1000))])
    ledger.reserve(call(1), 700, 0.0, NOON)
    later = NOON + LONGEST_CALL
    follows = successor(ledger, ("ever", BudgetSpec(period=Period.TOTAL, tokens=1000)))
    refusal(follows.reserve(call(2), 400, 0.0, later))
    follows.settle("c1", 1, 0.0, later)
    assert taken(follows, "ever", "planner") == (700, 0)


def test_an_account_is_kept_until_its_period_is_over_and_its_calls_have_ended() -> None:
    ledger = BudgetLedger([DAILY])
    ledger.reserve(call(1), 10, 0.0, MIDNIGHT - 1.0)
    ledger.reserve(call(2), 10, 0.0, MIDNIGHT)
    keys = [each.key for each in ledger.changed()]
    assert ledger.expired(MIDNIGHT) == []
    ledger.settle("c1", 5, 0.0, MIDNIGHT)
    assert ledger.expired(MIDNIGHT) == keys[:1]
    assert [each.key for each in ledger.changed()] == []


def test_a_budget_that_is_no_longer_declared_asks_nothing_and_another_limit_holds_at_once() -> None:
    ever = BudgetSpec(period=Period.TOTAL, tokens=100)
    ledger = BudgetLedger([("ever", ever)])
    ledger.reserve(call(1), 80, 0.0, NOON)
    ledger.reconfigure([("ever", ever.model_copy(update={"tokens": 200}))])
    assert ledger.reserve(call(2), 120, 0.0, NOON) is None
    ledger.reconfigure([])
    assert ledger.reserve(call(3), 10**6, 0.0, NOON) is None
    assert ledger.expired(NOON) == [], "two calls are under way"
    for each in ("c1", "c2"):
        ledger.release(each, NOON)
    assert len(ledger.expired(NOON)) == 1


def test_what_could_not_be_written_is_told_again_as_it_stands_then() -> None:
    ledger = BudgetLedger([DAILY])
    ledger.reserve(call(1), 100, 0.0, NOON)
    written = ledger.changed()
    ledger.settle("c1", 40, 0.0, NOON)
    ledger.not_written(written)
    (again,) = ledger.changed()
    assert (again.spent.tokens, dict(again.open)) == (40, {})


def test_figures_begin_with_those_nearest_to_their_limit() -> None:
    other = ("other", BudgetSpec(scope=BudgetScope.CONTEXT, usd=2.0))
    ledger = BudgetLedger([other, DAILY])
    ledger.reserve(call(1), 500, 0.5, NOON)
    ledger.reserve(call(2, tenant="coder", context="x"), 900, 1.5, NOON)
    shown = [(each.budget, each.value, round(each.share, 3)) for each in ledger.figures(NOON)]
    assert shown == [
        ("daily", "coder", 0.9),
        ("other", "x", 0.75),
        ("daily", "planner", 0.5),
        ("other", NONE, 0.25),
    ]
    assert [each.value for each in BudgetLedger([DAILY]).figures(NOON)] == [None]


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        (Period.MINUTE, "2026-12-31T23:59", "2027-01-01T00:00"),
        (Period.HOUR, "2026-12-31T23:00", "2027-01-01T00:00"),
        (Period.DAY, "2026-12-31T00:00", "2027-01-01T00:00"),
        (Period.MONTH, "2026-12-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_periods_begin_on_the_clock_in_utc(period: Period, start: str, end: str) -> None:
    now = datetime(2026, 12, 31, 23, 59, 59, 900_000, tzinfo=UTC).timestamp()
    first = began(period, now)
    last = ends(period, first)
    assert last is not None
    shown = [datetime.fromtimestamp(each, UTC).isoformat()[:16] for each in (first, last)]
    assert shown == [start, end]
    assert ends(Period.TOTAL, began(Period.TOTAL, now)) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"spent":[0,0],"used":1,"open":{}}',
        b'{"tree":"t","spent":[-1,0],"used":1,"open":{}}',
        b'{"tree":"t","spent":[0,0],"used":1,"open":{"c":[1,2]}}',
    ],
    ids=["empty", "list", "nobody's", "negative", "short"],
)
def test_a_record_that_is_none_is_not_taken(text: bytes) -> None:
    with pytest.raises(ValueError, match="account"):
        LedgerRecord.from_json(text)
