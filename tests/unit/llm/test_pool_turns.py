"""Whose turn it is: classes, tenants, arrival, deadlines, bounds on waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from tests.unit.llm.scheduling import (
    NOW,
    admitted,
    call,
    ended,
    pool,
    provider,
    refused,
    scheduler,
)

from weft.controlplane.llm.call import Reason, Usage
from weft.controlplane.llm.pool import PoolScheduler
from weft.model.model_pool import ModelPool
from weft.model.service_class import ServiceClass

INTERACTIVE, STANDARD, BATCH = ServiceClass

ONE = provider(limits={"concurrency": 1})


def occupied(**scheduling: Any) -> PoolScheduler:
    """A pool with one place, which the call `first` has; everybody may be interactive."""
    tenants = [{"name": name, "class": "interactive"} for name in ("t", "u")]
    here = scheduler(pool(ONE, **{"tenants": tenants, **scheduling}))
    here.submit(call("first"), NOW)
    assert admitted(here.decisions(NOW)) == ["first"]
    return here


def in_order(here: PoolScheduler, now: float, last: str = "first") -> list[str]:
    """Who is admitted, one after the other, from `now` on."""
    order: list[str] = []
    while True:
        here.ended(ended(last, now), now)
        started = admitted(here.decisions(now))
        if not started:
            return order
        (last,) = started
        order.append(last)


def test_better_classes_go_first_and_calls_of_one_tenant_by_arrival() -> None:
    here = occupied()
    for number, which in enumerate((BATCH, STANDARD, INTERACTIVE, BATCH, STANDARD, INTERACTIVE)):
        here.submit(call(f"{which}-{number}", service_class=which), NOW)
    assert in_order(here, NOW) == [
        "interactive-2",
        "interactive-5",
        "standard-1",
        "standard-4",
        "batch-0",
        "batch-3",
    ]


def test_a_tenants_class_is_the_best_its_calls_can_have() -> None:
    here = occupied(tenants=[{"name": "u", "class": "batch"}])
    here.submit(call("u", "u", service_class=INTERACTIVE), NOW)
    here.submit(call("t", "t", service_class=INTERACTIVE), NOW)
    assert in_order(here, NOW) == ["t", "u"]


def test_what_has_waited_half_of_what_it_may_goes_with_the_class_above() -> None:
    here = occupied(maxWait="60s")
    here.submit(call("batch", service_class=BATCH), NOW)
    here.submit(call("earlier", service_class=STANDARD), NOW + 1)
    assert here.wakes_at() == NOW + 30
    here.decisions(NOW + 30)
    here.submit(call("later", service_class=STANDARD), NOW + 30)
    assert in_order(here, NOW + 30) == ["batch", "earlier", "later"]


def test_a_tenant_that_returns_does_not_make_up_for_what_it_did_not_ask_for() -> None:
    here = occupied()
    for number in range(6):
        here.submit(call(f"t{number}", "t"), NOW)
    last = "first"
    for _ in range(3):
        here.ended(ended(last, NOW), NOW)
        (last,) = admitted(here.decisions(NOW))
    for number in range(3):
        here.submit(call(f"u{number}", "u"), NOW)
    assert in_order(here, NOW, last)[:4] in (["t3", "u0", "t4", "u1"], ["u0", "t3", "u1", "t4"])


def test_what_a_call_really_used_is_what_its_tenant_is_charged() -> None:
    here = occupied()
    for number in range(4):
        here.submit(call(f"t{number}", "t", output=100), NOW)
        here.submit(call(f"u{number}", "u", output=100), NOW)
    here.ended(ended("first", NOW), NOW)
    order = []
    while started := admitted(here.decisions(NOW)):
        order += started
        tokens = 100 if started[0].startswith("t") else 1
        here.ended(ended(started[0], NOW, usage=Usage(10, tokens)), NOW)
    assert [each[0] for each in order[:5]].count("u") == 4


def by_the_minute(calls: int) -> ModelPool:
    """A pool whose only limit is on the calls of a minute, for which calls may well wait."""
    return pool(provider(limits={"requestsPerMinute": calls}), maxWait="1h")


def ask(here: PoolScheduler, tenant: str, calls: int, since: int = 0) -> None:
    """Calls whose answers may have a hundred tokens."""
    for number in range(since, since + calls):
        here.submit(call(f"{tenant}{number}", tenant, output=100), NOW)


def answer(here: PoolScheduler, calls: Iterable[str]) -> None:
    """All of them, with one token."""
    for each in calls:
        here.ended(ended(each, NOW + 2, tenant=each[0], usage=Usage(10, 1)), NOW + 2)


def shares(here: PoolScheduler) -> dict[str, int]:
    """How many calls of each tenant a minute later may start."""
    return Counter(each[0] for each in admitted(here.decisions(NOW + 63)))


@pytest.mark.parametrize("lost", [False, True], ids=["here", "by a predecessor"])
def test_who_comes_while_others_are_served_does_not_wait_until_what_was_misjudged_is_used(lost: bool) -> None:
    here = scheduler(by_the_minute(10))
    ask(here, "t", 10)
    started = admitted(here.decisions(NOW))
    if lost:
        here = scheduler(by_the_minute(10), here.state())
    ask(here, "t", 10, since=10)
    ask(here, "u", 10)
    assert here.decisions(NOW) == []
    answer(here, started)
    assert shares(here) == {"t": 5, "u": 5}


def test_calls_that_wait_are_charged_what_is_known_when_it_is_their_turn() -> None:
    here = scheduler(by_the_minute(20))
    ask(here, "t", 30)
    ask(here, "u", 10)
    answer(here, admitted(here.decisions(NOW)))
    ask(here, "u", 20, since=10)
    assert shares(here) == {"t": 10, "u": 10}


def test_a_tenant_of_whom_nothing_is_known_is_charged_like_the_others() -> None:
    here = scheduler(by_the_minute(10))
    ask(here, "t", 10)
    answer(here, admitted(here.decisions(NOW)))
    ask(here, "t", 10, since=10)
    ask(here, "u", 10)
    assert shares(here) == {"t": 5, "u": 5}


def test_no_more_wait_than_may_and_who_has_most_waiting_makes_room() -> None:
    here = occupied(maxWaiting=3)
    for number in range(4):
        here.submit(call(f"t{number}", "t"), NOW)
    assert refused(here.decisions(NOW)) == {"t3": Reason.QUEUE_FULL}
    here.submit(call("u0", "u"), NOW)
    assert refused(here.decisions(NOW)) == {"t2": Reason.QUEUE_FULL}
    here.submit(call("t4", "t", service_class=INTERACTIVE), NOW)
    assert refused(here.decisions(NOW)) == {"t1": Reason.QUEUE_FULL}


def test_nobody_waits_longer_than_the_pool_says() -> None:
    here = occupied(maxWait="5s")
    here.submit(call("late", service_class=INTERACTIVE), NOW)
    assert here.decisions(NOW + 4.9) == []
    assert here.wakes_at() == NOW + 5
    (refusal,) = here.decisions(NOW + 5)
    assert refused([refusal]) == {"late": Reason.WAITED_TOO_LONG}
    assert "waited 5 s" in refusal.detail  # type: ignore[union-attr]
    assert here.wakes_at() is None


def test_where_nobody_may_wait_there_is_either_room_or_a_refusal() -> None:
    here = scheduler(pool(ONE, maxWait="0s"))
    here.submit(call("first"), NOW)
    here.submit(call("second"), NOW)
    decisions = here.decisions(NOW)
    assert admitted(decisions) == ["first"]
    assert refused(decisions) == {"second": Reason.WAITED_TOO_LONG}


def test_a_call_whose_deadline_passes_while_it_waits_is_refused_then() -> None:
    here = occupied()
    here.submit(call("hasty", deadline=NOW + 3), NOW)
    assert here.decisions(NOW) == []
    assert here.wakes_at() == NOW + 3
    assert refused(here.decisions(NOW + 3)) == {"hasty": Reason.DEADLINE}


def test_a_call_that_cannot_make_its_deadline_is_refused_at_once() -> None:
    here = occupied()
    now = NOW + 10
    here.ended(ended("first", now, first_token=1.0, usage=Usage(10, 10)), now)
    here.submit(call("running"), now)
    here.decisions(now)
    for number in range(3):
        here.submit(call(f"ahead{number}"), now)
    # Calls take ten seconds, one at a time, and three are ahead.
    here.submit(call("hopeless", deadline=now + 30), now)
    here.submit(call("patient", deadline=now + 50), now)
    assert refused(here.decisions(now)) == {"hopeless": Reason.DEADLINE}
    # Not that of its own tenant, of which nothing waits.
    here.submit(call("other", "u", deadline=now + 30), now)
    assert here.decisions(now) == []


@pytest.mark.parametrize(
    ("prompt", "output", "fits"), [(100, 900, True), (10, 1001, False), (2900, 0, True), (3300, 0, False)]
)
def test_only_what_certainly_exceeds_every_context_is_refused(prompt: int, output: int, fits: bool) -> None:
    limits = {"contextTokens": 1000}
    here = scheduler(pool(provider("a", limits={"contextTokens": 500}), provider("b", limits=limits)))
    here.submit(call("x", prompt=prompt, output=output), NOW)
    decisions = here.decisions(NOW)
    assert bool(admitted(decisions)) is fits
    assert fits or refused(decisions) == {"x": Reason.CONTEXT_LENGTH}


def test_those_with_short_prompts_do_not_wait_for_those_that_few_providers_can_take() -> None:
    here = scheduler(
        pool(
            provider("small", limits={"contextTokens": 100, "concurrency": 1}),
            provider("large", limits={"contextTokens": 1000, "concurrency": 1}, order=1),
        )
    )
    here.submit(call("l0", prompt=500), NOW)
    here.submit(call("l1", prompt=500), NOW)
    here.submit(call("s0"), NOW)
    here.submit(call("s1"), NOW)
    assert admitted(here.decisions(NOW)) == ["l0", "s0"]
    # The large one's place is kept for the one that may go nowhere else.
    here.ended(ended("l0", NOW, "large"), NOW)
    assert admitted(here.decisions(NOW)) == ["l1"]


def test_a_caller_that_leaves_makes_room() -> None:
    here = occupied(maxWaiting=1)
    here.submit(call("waits"), NOW)
    assert here.decisions(NOW) == []
    here.withdraw("waits", NOW)
    here.submit(call("next"), NOW)
    assert here.decisions(NOW) == []
    here.ended(ended("first", NOW), NOW)
    assert admitted(here.decisions(NOW)) == ["next"]


def test_a_call_that_asks_again_though_it_is_under_way_gets_the_same_answer() -> None:
    here = occupied()
    here.submit(call("first"), NOW)
    assert admitted(here.decisions(NOW)) == ["first"]
    assert here.figures(NOW).providers[0].under_way == 1
