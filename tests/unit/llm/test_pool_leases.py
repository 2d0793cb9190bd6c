"""Leases: who may send without asking, how much, and that limits hold all the same."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.unit.llm.scheduling import NOW, WINDOW, call, failure, places, pool, provider, scheduler

from weft.controlplane.llm.pool import PoolScheduler
from weft.model.llm_wire import NEVER_LEASED


def asked(here: PoolScheduler, now: float, requests: int = 10, holder: str = "h") -> None:
    """The holder needs so many calls of a hundred tokens."""
    here.demand(holder, requests, requests * 100, now)


def test_where_there_is_no_limit_grants_are_large_but_not_for_what_must_ask() -> None:
    here = scheduler(pool(provider()))
    asked(here, NOW)
    grants = here.grants(NOW + 1)
    assert grants["h"].pool == "p"
    assert grants["h"].requests >= 100_000
    assert 1_000_000 < grants["h"].tokens < NEVER_LEASED


def test_a_grant_is_what_its_holder_needs_until_the_next_and_is_charged() -> None:
    here = scheduler(pool(provider(limits={"requestsPerMinute": 6000, "tokensPerMinute": 600_000})))
    asked(here, NOW, 20)
    (grant,) = here.grants(NOW + 1).values()
    assert grant.requests == 37
    assert grant.tokens == pytest.approx(3750, abs=5)
    (figures,) = here.figures(NOW + 1).providers
    assert (figures.requests_in_window, figures.tokens_in_window) == (grant.requests, grant.tokens)


def test_a_small_part_of_a_large_limit_is_leased_whatever_is_needed_so_that_a_burst_need_not_ask() -> None:
    here = scheduler(pool(provider(limits={"requestsPerMinute": 6_000_000})))
    asked(here, NOW, 15, "h")
    asked(here, NOW, 15, "i")
    assert [each.requests for each in here.grants(NOW + 1).values()] == [2000, 2000]


@pytest.mark.parametrize(
    "providers",
    [
        [provider(limits={"concurrency": 100})],
        [provider(limits={"requestsPerMinute": 100})],
        [provider("a"), provider("b", limits={"concurrency": 100})],
    ],
)
def test_there_are_none_for_pools_with_slots_or_with_less_room_than_is_needed(
    providers: list[dict[str, Any]],
) -> None:
    here = scheduler(pool(*providers))
    asked(here, NOW)
    assert here.grants(NOW + 1) == {}


def test_there_are_none_while_calls_wait_or_a_provider_is_spared_or_the_pool_does_not_want_them() -> None:
    here = scheduler(pool(provider(limits={"requestsPerMinute": 600})))
    asked(here, NOW, 2)
    assert here.grants(NOW + 1)
    here.attempt_failed(failure("a", NOW + 1, 429), NOW + 1)
    assert here.grants(NOW + 1.5) == {}
    here.submit(call("waits"), NOW + 1.5)
    assert here.decisions(NOW + 1.5) == []
    assert here.contended()
    assert places(here.decisions(NOW + 2)) == ["a"]
    asked(here, NOW + 3)
    assert here.grants(NOW + 3) == {}
    assert here.grants(NOW + 4)
    here.reconfigure(pool(provider(), fastPath=False), NOW + 4)
    assert here.grants(NOW + 5) == {}


def test_who_needs_nothing_for_some_time_has_none() -> None:
    here = scheduler(pool(provider()))
    asked(here, NOW)
    assert here.grants(NOW + 1)
    assert here.grants(NOW + 4)
    assert here.grants(NOW + 7) == {}
    assert here.figures(NOW + 7).leases == {}


@pytest.mark.parametrize("weights", [(1,), (1, 3)])
def test_limits_hold_for_what_is_leased_and_what_is_asked_for_together(weights: tuple[int, ...]) -> None:
    """Sidecars use grants wholly, until the next reaches them late; whatever else they want they ask for."""
    limit = 3000
    dice = random.Random(7)
    names = [f"p{each}" for each in range(len(weights))]
    here = scheduler(
        pool(
            *(
                provider(name, weight=weight, limits={"requestsPerMinute": limit})
                for name, weight in zip(names, weights, strict=True)
            ),
            maxWaiting=100_000,
        )
    )
    sent: dict[str, list[float]] = {name: [] for name in names}
    leased, number, now = 0, 0, NOW
    granted: dict[str, int] = {}
    for second in range(150):
        now = NOW + second
        # Three holders, with more and more to do: at last more than there is.
        for holder in ("x", "y", "z"):
            wants = second // 2
            asked(here, now, wants, holder)
            use = granted.get(holder, 0)
            leased += use
            # The grant before this one is still in force for a while.
            for _ in range(use):
                (name,) = dice.choices(names, weights)
                sent[name].append(now + dice.random() * 1.9)
            for _ in range(max(0, wants - use)):
                here.submit(call(str(number)), now)
                number += 1
        for where in places(here.decisions(now)):
            sent[where].append(now)
        granted = {name: each.requests for name, each in here.grants(now).items()}
        assert not (granted and here.contended())
    assert leased > 500
    assert here.contended()
    for moments in sent.values():
        ordered = sorted(moments)
        for index, moment in enumerate(ordered[limit:]):
            assert moment - ordered[index] > WINDOW
