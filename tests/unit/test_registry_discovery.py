"""Finding instances."""

from __future__ import annotations

import pytest

from weft.errors import InvalidRequest
from weft.model.agent import Instance, Query, Status
from weft.registry.discovery import discover

ANY = Query(statuses=frozenset())


def _instances(count: int) -> list[Instance]:
    # In no order, as they come from a dictionary.
    return [Instance(f"i{n:03}", "a", "127.0.0.1:1") for n in reversed(range(count))]


def test_pages_are_sorted_by_key_and_together_hold_everything_once() -> None:
    instances = _instances(25)
    found: list[str] = []
    after: str | None = ""
    pages = 0
    while after is not None:
        page = discover(instances, ANY, limit=10, after=after)
        found += [each.key for each in page.instances]
        after = page.next
        pages += 1
    assert found == [f"a.i{n:03}" for n in range(25)]
    assert pages == 3


def test_a_page_that_is_just_full_has_no_next() -> None:
    assert discover(_instances(10), ANY, limit=10).next is None


def test_only_healthy_instances_are_found_unless_asked_otherwise() -> None:
    instances = [Instance(status.value, "a", "127.0.0.1:1", status) for status in Status]
    assert [each.id for each in discover(instances, Query()).instances] == ["healthy"]
    assert len(discover(instances, ANY).instances) == len(Status)


def test_all_capabilities_asked_for_must_be_there() -> None:
    instances = [
        Instance("both", "a", "127.0.0.1:1", capabilities=frozenset({"x", "y"})),
        Instance("half", "a", "127.0.0.1:1", capabilities=frozenset({"x"})),
    ]
    query = Query(capabilities=frozenset({"x", "y"}), statuses=frozenset())
    assert [each.id for each in discover(instances, query).instances] == ["both"]


def test_after_need_not_be_a_key_that_still_exists() -> None:
    page = discover(_instances(3), ANY, after="a.i000-gone")
    assert [each.id for each in page.instances] == ["i001", "i002"]


def test_a_page_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        discover([], ANY, limit=0)
