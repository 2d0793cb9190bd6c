"""Counting votes: who wins by which rule, and from when on nothing changes any more."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from weft.errors import InvalidRequest
from weft.orchestration.tally import RULES, Rule, Tally


def counted(rule: Rule, votes: list[tuple[Any, float]], *, total: float | None = None) -> Tally:
    tally = Tally(sum(weight for _, weight in votes) if total is None else total, rule, None)
    for number, (ballot, weight) in enumerate(votes):
        tally.vote(f"v{number}", weight, ballot)
    return tally


def winner(tally: Tally) -> Any:
    found = tally.winner()
    return None if found is None else found.choice


@pytest.mark.parametrize(
    ("rule", "votes", "expected"),
    [
        ("majority", [("a", 1), ("a", 1), ("b", 1)], "a"),
        ("majority", [("a", 1), ("b", 1)], None),
        ("majority", [("a", 2), ("b", 1), ("c", 1)], None),
        ("majority", [("a", 2.1), ("b", 1), ("c", 1)], "a"),
        ("plurality", [("a", 2), ("b", 1), ("c", 1)], "a"),
        ("plurality", [("a", 1), ("b", 1), ("c", 0.5)], None),
        ("unanimous", [("a", 1), ("a", 1)], "a"),
        ("unanimous", [("a", 9), ("b", 1)], None),
        ("majority", [(0.1, 1), (0.1, 1), (True, 1)], 0.1),
        ("majority", [({"x": [1]}, 1), ({"x": [1]}, 1), (None, 1)], {"x": [1]}),
        ("majority", [(0.1, 0.1)] * 3 + [("b", 0.3)], None),
    ],
)
def test_who_wins(rule: Rule, votes: list[tuple[Any, float]], expected: Any) -> None:
    assert winner(counted(rule, votes)) == expected


def test_voters_who_fail_count_against_a_majority_and_a_unanimous_vote_but_not_a_plurality() -> None:
    for rule, expected in (("majority", None), ("plurality", "a"), ("unanimous", None)):
        tally = Tally(4, rule, None)  # type: ignore[arg-type]
        tally.vote("one", 2, "a")
        tally.abstain(2)
        assert tally.decided
        assert winner(tally) == expected, rule


def test_texts_are_the_same_choice_whatever_case_and_quotes_models_put_around_them() -> None:
    tally = counted("unanimous", [("Yes", 1), (' "yes".\n', 1), ("**YES**", 1)])
    assert winner(tally) == "Yes"
    [count] = tally.counts
    assert (count.weight, count.voters) == (3, ["v0", "v1", "v2"])


def test_a_vote_for_what_is_not_to_choose_is_spoiled() -> None:
    tally = Tally(3, "majority", ["Yes", "No"])
    assert tally.vote("one", 1, "yes")
    assert not tally.vote("two", 1, "perhaps")
    assert not tally.vote("three", 1, 7)
    assert winner(tally) is None
    assert [each.choice for each in tally.counts] == ["Yes"]


def test_those_between_whom_it_is_are_told() -> None:
    assert counted("plurality", [("a", 1), ("b", 2), ("c", 2)]).tied() == ["b", "c"]
    assert counted("unanimous", [("a", 1), ("b", 2)]).tied() == ["b", "a"]
    assert Tally(1, "majority", None).tied() == []


@pytest.mark.parametrize("rule", RULES)
def test_once_decided_no_vote_that_is_still_to_come_changes_anything(rule: Rule) -> None:
    """Tried out for all ways in which three choices can go on."""
    chance = random.Random(7)
    for _ in range(60):
        weights = [chance.choice([1, 1, 2, 0.5]) for _ in range(5)]
        votes = [(chance.choice("abc"), weight) for weight in weights]
        for known in range(len(votes) + 1):
            tally = counted(rule, votes[:known], total=sum(weights))
            if tally.decided:
                ends = {
                    winner(counted(rule, [*votes[:known], *zip(rest, weights[known:], strict=True)]))
                    for rest in itertools.product("abc", repeat=len(votes) - known)
                }
                assert len(ends) == 1, (rule, votes, known)
                break


@pytest.mark.parametrize(("rule", "choices"), [("loudest", None), ("majority", [])])
def test_what_makes_no_sense_is_refused(rule: Any, choices: Any) -> None:
    with pytest.raises(InvalidRequest):
        Tally(1, rule, choices)
