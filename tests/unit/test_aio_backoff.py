"""Pauses between attempts."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from weft.aio.backoff import backoff


def test_pauses_stay_under_a_ceiling_that_doubles_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    assert list(islice(backoff(first=0.5, longest=3.0), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_pauses_are_spread_over_the_whole_range_below_the_ceiling() -> None:
    pauses = list(islice(backoff(first=1.0, longest=1.0), 1000))
    assert all(0 <= pause <= 1 for pause in pauses)
    assert min(pauses) < 0.1
    assert max(pauses) > 0.9
