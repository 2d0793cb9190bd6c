"""How many branches have to succeed: so many, or a part of them."""

from __future__ import annotations

import pytest

from weft.errors import InvalidRequest
from weft.orchestration.quorum import Quorum


@pytest.mark.parametrize(
    ("asked", "total", "needed"),
    [
        (None, 5, 1),
        (None, 0, 0),
        (1, 5, 1),
        (5, 5, 5),
        (1.0, 5, 5),
        (0.5, 5, 3),
        (0.5, 4, 2),
        (0.1, 30, 3),
        (1e-6, 9, 1),
    ],
)
def test_what_a_quorum_means(asked: float | None, total: int, needed: int) -> None:
    assert Quorum.of(asked, total).needed == needed


@pytest.mark.parametrize("asked", [0, 6, -1, 0.0, 1.1, -0.5, float("nan")])
def test_what_is_no_quorum_is_refused(asked: float) -> None:
    with pytest.raises(InvalidRequest):
        Quorum.of(asked, 5)


def test_one_that_is_reached_ends_it_and_none_waits_for_all() -> None:
    early, patient = Quorum.of(1, 3), Quorum.of(None, 3)
    for quorum in (early, patient):
        quorum.note(ok=False)
        assert not quorum.over
        quorum.note(ok=True)
        assert quorum.reached
    assert early.over
    assert not patient.over


def test_one_out_of_reach_ends_it() -> None:
    quorum = Quorum.of(2, 3)
    quorum.note(ok=False)
    assert not quorum.out_of_reach
    quorum.note(ok=False)
    assert quorum.out_of_reach
    assert quorum.over
