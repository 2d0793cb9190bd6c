"""Leases of clients that call again as soon as they are answered: slow while they ask, fast on a lease."""

from __future__ import annotations

import pytest
from tests.unit.llm.scheduling import NOW, pool, provider, scheduler

ASKED = 500
"""Calls that all clients together make in a second while they ask."""

LEASED = 12_000
"""And on a lease."""


def calls_by_second(requests_per_minute: int, seconds: int) -> list[int]:
    """How many calls are made on leases by one sidecar, second by second."""
    here = scheduler(pool(provider(limits={"requestsPerMinute": requests_per_minute})))
    granted, calls = 0, []
    for second in range(seconds):
        leased = min(granted, LEASED)
        asked = round(ASKED * (1 - leased / LEASED))
        here.demand("h", leased + asked, (leased + asked) * 100, NOW + second)
        grant = here.grants(NOW + second + 1).get("h")
        granted = grant.requests if grant is not None else 0
        calls.append(leased)
    return calls


@pytest.mark.parametrize(("requests_per_minute", "within"), [(100_000_000, 1), (2_000_000, 4)])
def test_who_asks_because_a_lease_ran_out_soon_has_one_that_is_enough(
    requests_per_minute: int, within: int
) -> None:
    assert calls_by_second(requests_per_minute, 20)[within:] == [LEASED] * (20 - within)


@pytest.mark.parametrize("requests_per_minute", [600_000, 900_000, 1_200_000])
def test_who_needs_most_of_a_limit_or_more_has_a_steady_part_of_it_on_leases(
    requests_per_minute: int,
) -> None:
    calls = calls_by_second(requests_per_minute, 180)
    enough = min(LEASED, 0.6 * requests_per_minute / 60)
    assert sum(each < enough for each in calls[5:]) <= 15  # where the window is that of the beginning
    assert sum(calls[-60:]) <= requests_per_minute
