from __future__ import annotations

from typing import Any

from weft.dashboard.followed import MAX_REMEMBERED, REMEMBERED, Followed


def instance(id_: str, status: str = "healthy") -> dict[str, Any]:
    return {"type": "worker", "id": id_, "status": status}


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [each["id"] for each in items]


def test_nothing_is_told_before_all_that_is_there_is_known() -> None:
    followed = Followed()
    followed.take("added", instance("b"), 0.0)
    assert not followed.changed(0.0)
    followed.take("synced", {}, 0.0)
    assert followed.changed(0.0)
    followed.take("added", instance("a"), 1.0)
    assert followed.changed(1.0)
    assert not followed.changed(1.0)
    assert ids(followed.news()["items"]) == ["a", "b"]


def test_who_left_is_told_of_as_it_was_last_until_it_is_back_or_forgotten() -> None:
    followed = Followed()
    followed.take("added", instance("a"), 0.0)
    followed.take("synced", {}, 0.0)
    followed.take("changed", instance("a", "draining"), 1.0)
    followed.take("removed", instance("a", "healthy"), 2.0)
    [left] = followed.news()["left"]
    assert (left["status"], left["leftAt"]) == ("draining", 2.0)
    followed.take("added", instance("a"), 3.0)
    assert followed.news()["left"] == []
    followed.take("removed", instance("a"), 4.0)
    assert followed.changed(5.0)
    assert followed.changed(4.1 + REMEMBERED)
    assert followed.news() == {"items": [], "left": []}


def test_of_those_that_left_only_the_last_are_kept() -> None:
    followed = Followed()
    for number in range(MAX_REMEMBERED + 5):
        followed.take("added", instance(f"{number:04}"), 0.0)
        followed.take("removed", instance(f"{number:04}"), 0.0)
    left = ids(followed.news()["left"])
    assert len(left) == MAX_REMEMBERED
    assert left[0] == "0005"
