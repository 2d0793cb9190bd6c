"""Where calls go: orders and weights, caches, limits that providers tell, and providers that fail."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.unit.llm.scheduling import (
    NOW,
    NoBudgets,
    admitted,
    call,
    ended,
    failure,
    places,
    pool,
    provider,
    refused,
    scheduler,
)

from weft.controlplane.llm.call import RateLimitNews, Reason, Usage
from weft.controlplane.llm.figures import Health
from weft.controlplane.llm.pool import PoolScheduler
from weft.controlplane.llm.pool_state import PoolState


def start(here: PoolScheduler, *ids: str, now: float = NOW, **fields: object) -> list[str]:
    """Where calls of these ids go that ask now."""
    for each in ids:
        here.submit(call(each, **fields), now)  # type: ignore[arg-type]
    return places(here.decisions(now))


def broken(here: PoolScheduler, name: str, now: float = NOW) -> None:
    """The provider fails until nothing is sent to it."""
    for _ in range(5):
        here.attempt_failed(failure(name, now), now)


def health(here: PoolScheduler, now: float) -> Health:
    """Of the first provider."""
    return here.figures(now).providers[0].health


def test_calls_are_divided_by_weight() -> None:
    here = scheduler(pool(provider("a", weight=3), provider("b")))
    assert Counter(start(here, *map(str, range(40)))) == {"a": 30, "b": 10}


def test_what_is_full_spills_into_the_next_order() -> None:
    here = scheduler(
        pool(provider("a", limits={"concurrency": 2}), provider("b", order=1, limits={"concurrency": 1}))
    )
    assert start(here, "0", "1", "2", "3") == ["a", "a", "b"]
    here.ended(ended("1", NOW, "a"), NOW)
    assert places(here.decisions(NOW)) == ["a"]


def test_a_context_stays_where_its_prompt_is_cached_but_not_at_the_cost_of_balance() -> None:
    here = scheduler(pool(provider("a"), provider("b")))
    (first,) = start(here, "first", context="c")
    for number in range(10):
        assert start(here, f"same{number}", context="c") == [first]
        here.ended(ended(f"same{number}", NOW, first), NOW)
    # Nothing ends now: it would take all.
    many = Counter(start(here, *(f"many{number}" for number in range(40)), context="c"))
    assert min(many.values()) >= 13


def test_without_affinity_a_context_goes_anywhere() -> None:
    here = scheduler(pool(provider("a"), provider("b"), affinity="none"))
    assert Counter(start(here, *map(str, range(20)), context="c")) == {"a": 10, "b": 10}


def test_a_window_is_used_up_wholly_and_again_when_it_has_passed() -> None:
    here = scheduler(pool(provider(limits={"requestsPerMinute": 100, "tokensPerMinute": 10_000})))
    served, now, number = [], NOW, 0
    while now < NOW + 600:
        here.submit(call(str(number), prompt=90, output=30), now)
        number += 1
        for each in admitted(here.decisions(now)):
            here.ended(ended(each, now, usage=Usage(90, 5)), now)
            served.append(now)
        now += 0.2
    # 100 requests a minute in ten minutes.
    assert len(served) >= 950
    for index, moment in enumerate(served):
        assert sum(moment - 60 < each <= moment for each in served[: index + 1]) <= 100


def test_a_larger_call_than_any_window_holds_has_one_for_itself() -> None:
    here = scheduler(pool(provider(limits={"tokensPerMinute": 100})))
    assert start(here, "small") == ["a"]
    assert start(here, "huge", output=5000) == []
    here.ended(ended("small", NOW, usage=Usage(10, 10)), NOW)
    assert places(here.decisions(NOW + 59)) == []
    assert places(here.decisions(NOW + 62)) == ["a"]


def test_lower_limits_than_declared_are_taken_over_from_the_providers_headers() -> None:
    here = scheduler(pool(provider(limits={"requestsPerMinute": 100})))
    assert start(here, "0") == ["a"]
    news = RateLimitNews(limit_requests=3, remaining_requests=2)
    here.ended(ended("0", NOW, news=news), NOW)
    assert start(here, "1", "2", "3") == ["a", "a"]
    assert here.figures(NOW).providers[0].requests_per_minute == 3


def test_a_provider_with_nothing_remaining_is_spared_unless_that_is_our_own_doing() -> None:
    nothing = RateLimitNews(remaining_requests=0, reset_requests=20.0)
    here = scheduler(pool(provider(limits={"requestsPerMinute": 10})))
    start(here, "0")
    here.ended(ended("0", NOW, news=nothing), NOW)
    assert start(here, "1") == []
    assert places(here.decisions(NOW + 20)) == ["a"]
    # All ten were ours: that they leave the window one by one is known better here.
    here = scheduler(pool(provider(limits={"requestsPerMinute": 10})))
    start(here, *map(str, range(10)))
    here.ended(ended("9", NOW, news=nothing), NOW)
    assert health(here, NOW) is Health.HEALTHY


def test_a_provider_that_says_for_how_long_is_spared_so_long() -> None:
    here = scheduler(pool(provider()))
    here.attempt_failed(failure("a", NOW, 429, RateLimitNews(retry_after=30.0)), NOW)
    assert start(here, "x") == []
    assert health(here, NOW) is Health.COOLING
    assert here.wakes_at() == NOW + 30
    assert places(here.decisions(NOW + 30)) == ["a"]


def test_a_provider_that_does_not_say_for_how_long_is_spared_longer_every_time() -> None:
    here, now, pauses = scheduler(pool(provider())), NOW, []
    for _ in range(4):
        # What was under way when the first was refused is no further refusal.
        here.attempt_failed(failure("a", now, 429), now)
        here.attempt_failed(failure("a", now, 429), now)
        until = here.figures(now).providers[0].until
        assert until is not None
        pauses.append(until - now)
        now = until
    assert pauses == [1, 2, 4, 8]
    start(here, "good", now=now)
    here.ended(ended("good", now + 1, started=now), now + 1)
    here.attempt_failed(failure("a", now + 2, 429), now + 2)
    assert here.figures(now + 2).providers[0].until == now + 3


def test_a_provider_that_fails_gets_nothing_then_one_call_then_more() -> None:
    here = scheduler(pool(provider()))
    broken(here, "a")
    assert health(here, NOW) is Health.BROKEN
    assert start(here, *map(str, range(10))) == []
    assert here.wakes_at() == NOW + 5
    now = NOW + 5
    (probe,) = admitted(here.decisions(now))
    here.ended(ended(probe, now), now)
    second = admitted(here.decisions(now))
    assert len(second) == 2
    for each in second:
        here.ended(ended(each, now), now)
    assert len(admitted(here.decisions(now))) == 7
    assert health(here, now) is Health.RETURNING


def test_a_probe_that_fails_makes_the_pause_longer() -> None:
    here = scheduler(pool(provider()))
    broken(here, "a")
    assert start(here, "probe", "other", now=NOW + 5) == ["a"]
    here.attempt_failed(failure("a", NOW + 6, 0), NOW + 6)
    here.ended(ended("probe", NOW + 6, status=503, usage=None), NOW + 6)
    assert here.figures(NOW + 6).providers[0].until == NOW + 16


def test_what_the_call_is_to_blame_for_does_not_speak_against_the_provider() -> None:
    here = scheduler(pool(provider()))
    for number in range(50):
        start(here, str(number))
        here.attempt_failed(failure("a", NOW, 400), NOW)
        here.ended(ended(str(number), NOW, status=400, usage=None), NOW)
    assert health(here, NOW) is Health.HEALTHY


def test_answers_that_break_off_count_as_failures() -> None:
    here = scheduler(pool(provider()))
    for number in range(5):
        start(here, str(number))
        here.ended(ended(str(number), NOW, broken=True, usage=None), NOW)
    assert health(here, NOW) is Health.BROKEN


def test_when_all_providers_fail_calls_wait_for_the_first_probe_if_they_may() -> None:
    here = scheduler(pool(provider("a"), provider("b", order=1), maxWait="4s"))
    broken(here, "a")
    assert start(here, "elsewhere") == ["b"]
    broken(here, "b", NOW + 2)
    # a may be probed in three seconds.
    assert start(here, "waits", now=NOW + 2) == []
    assert places(here.decisions(NOW + 5)) == ["a"]
    here.attempt_failed(failure("a", NOW + 5), NOW + 5)
    broken(here, "b", NOW + 7)
    here.submit(call("hopeless"), NOW + 7)
    assert refused(here.decisions(NOW + 7)) == {"hopeless": Reason.NO_PROVIDER}


def test_a_retry_goes_before_all_that_wait_and_leaves_its_place_at_once() -> None:
    limits = {"concurrency": 1}
    here = scheduler(pool(provider("a", limits=limits), provider("b", limits=limits)))
    assert sorted(start(here, "0", "1", "waits")) == ["a", "b"]
    at_a = next(each.call_id for each in here.state().flights if each.provider == "a")
    at_b = "1" if at_a == "0" else "0"
    here.attempt_failed(failure("a", NOW), NOW)
    here.retry(at_a, None, "b", NOW)
    # Its place at a is for who waits; b is waited for.
    assert admitted(here.decisions(NOW)) == ["waits"]
    here.submit(call("later"), NOW)
    here.ended(ended(at_b, NOW, "b"), NOW)
    assert admitted(here.decisions(NOW)) == [at_a]


def test_a_retry_at_a_provider_that_fails_is_refused_so_that_the_next_is_tried() -> None:
    here = scheduler(pool(provider("a"), provider("b", order=1)))
    start(here, "x")
    broken(here, "b")
    here.retry("x", None, "b", NOW)
    assert refused(here.decisions(NOW)) == {"x": Reason.NO_PROVIDER}
    here.retry("unknown", None, "a", NOW)
    assert refused(here.decisions(NOW)) == {"unknown": Reason.NOT_SCHEDULED}


def test_a_call_on_a_lease_that_failed_is_scheduled_from_its_second_attempt_on() -> None:
    budgets = NoBudgets()
    here = PoolScheduler(
        pool(provider("a"), provider("b", order=1, limits={"concurrency": 1})), budgets, now=NOW
    )
    here.retry("x", call("x"), "b", NOW)
    assert places(here.decisions(NOW)) == ["b"]
    assert budgets.reserved == {"x": 20}
    here.ended(ended("x", NOW, "b", usage=Usage(3, 4)), NOW)
    assert budgets.settled == {"x": 7}
    assert here.state() == PoolState((), here.state().providers)


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"usage": Usage(10, 3)}, 13),
        ({"usage": None, "status": 400}, 0),
        ({"usage": None, "status": 503, "provider": None}, 0),
        ({"usage": None, "estimated_tokens": 20}, 20),
    ],
)
def test_what_a_call_used_is_what_its_budget_and_its_window_are_charged(
    fields: dict[str, object], tokens: int
) -> None:
    budgets = NoBudgets()
    here = PoolScheduler(pool(provider(limits={"tokensPerMinute": 1000})), budgets, now=NOW)
    start(here, "x")
    here.ended(ended("x", NOW, **fields), NOW)  # type: ignore[arg-type]
    assert budgets.settled == {"x": tokens}
    assert here.figures(NOW).providers[0].tokens_in_window == tokens


def test_the_calls_of_a_sidecar_that_is_gone_count_as_having_used_what_was_reserved() -> None:
    budgets = NoBudgets()
    here = PoolScheduler(pool(provider(limits={"concurrency": 1})), budgets, now=NOW)
    start(here, "runs", "waits")
    start(here, "other", sidecar="other")
    here.sidecar_gone("s", NOW)
    assert budgets.settled == {"runs": 20}
    assert admitted(here.decisions(NOW)) == ["other"]


def test_what_is_reserved_for_an_answer_without_bound_is_learned() -> None:
    here = scheduler(pool(provider(limits={"tokensPerMinute": 1_000_000}), assumedOutputTokens=1000))
    for number in range(20):
        start(here, str(number), output=None)
        here.ended(ended(str(number), NOW, usage=Usage(10, 40)), NOW)
    start(here, "x", output=None)
    assert 40 <= here.state().flights[0].output_tokens <= 60


def test_a_provider_that_is_declared_with_another_key_is_not_judged_by_the_former() -> None:
    here = scheduler(pool(provider()))
    for _ in range(5):
        here.attempt_failed(failure("a", NOW, 401), NOW)
    assert health(here, NOW) is Health.BROKEN
    here.reconfigure(pool(provider(weight=2)), NOW)
    assert health(here, NOW) is Health.BROKEN
    here.reconfigure(pool(provider(key={"secret": "new", "key": "value"})), NOW)
    assert start(here, "x") == ["a"]


def test_a_call_that_is_told_late_that_it_may_start_counts_from_then_on() -> None:
    here = scheduler(pool(provider(limits={"requestsPerMinute": 1})))
    start(here, "slow", "next")
    here.delayed("slow", NOW + 4)
    assert here.decisions(NOW + 62) == []
    assert admitted(here.decisions(NOW + 66)) == ["next"]


def test_a_successor_whose_clock_is_behind_waits_no_longer_than_a_window() -> None:
    limited = pool(provider("a", limits={"requestsPerMinute": 1}))
    before = scheduler(limited, now=NOW + 3600)
    before.submit(call("before"), NOW + 3600)
    assert admitted(before.decisions(NOW + 3600)) == ["before"]
    here = scheduler(limited, before.state())
    here.submit(call("next"), NOW)
    assert admitted(here.decisions(NOW + 60)) == []
    assert admitted(here.decisions(NOW + 62)) == ["next"]


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"version":2}', b'{"version":1,"flights":[[1]],"providers":[]}', b"\xff"]
)
def test_what_is_no_state_of_a_pool_is_not_taken_for_one(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        PoolState.from_json(text)


def test_providers_come_and_go_while_calls_wait_and_run() -> None:
    here = scheduler(pool(provider("a", limits={"concurrency": 1})))
    assert start(here, "runs", "waits") == ["a"]
    here.reconfigure(pool(provider("b", limits={"concurrency": 1})), NOW)
    assert places(here.decisions(NOW)) == ["b"]
    here.reconfigure(pool(provider("a", limits={"concurrency": 1})), NOW)
    # What runs there still has its place.
    assert start(here, "next") == []
    here.ended(ended("runs", NOW), NOW)
    assert places(here.decisions(NOW)) == ["a"]
