"""Routes that are shown and edited."""

from __future__ import annotations

from typing import Any

import pytest

from weft.dashboard.pages.route_edit import (
    Mistake,
    check_edited,
    difference,
    manifest_of,
    mistakes,
    mistakes_in,
    policy_row,
    reweighted,
    route_row,
    split_text,
    splits,
)
from weft.errors import InvalidRequest, InvalidResource
from weft.model.manifest import parse_documents

ROUTE: dict[str, Any] = {
    "apiVersion": "weft.dev/v1alpha1",
    "kind": "Route",
    "metadata": {
        "name": "summarizer",
        "resourceVersion": "42",
        "generation": 3,
        "creationTimestamp": "2026-11-22T00:00:00Z",
    },
    "spec": {
        "destination": {"type": "summarizer"},
        "rules": [
            {"name": "big", "timeout": "90s"},
            {
                "split": [
                    {"version": "1", "weight": 9},
                    {"version": "2", "weight": 1},
                    {"type": "older", "weight": 0},
                ]
            },
        ],
    },
}


def test_shares_follow_from_weights() -> None:
    [split] = splits(ROUTE)
    assert (split.rule, split.name) == (1, "rule 2")
    assert split_text(split) == "version 1 90%, version 2 10%, older 0%"
    assert route_row(ROUTE)["split"] == split_text(split)


def test_a_route_without_a_split_says_so() -> None:
    plain = {**ROUTE, "spec": {"destination": {"capability": "sums"}, "rules": [{}]}}
    row = route_row(plain)
    assert (row["split"], row["target"]) == ("no split", "capability sums")


def test_a_policy_tells_what_it_sets() -> None:
    policy = {
        "kind": "TrafficPolicy",
        "metadata": {"name": "p"},
        "spec": {"timeout": "5s", "retries": {"attempts": 2}},
    }
    row = policy_row(policy)
    assert (row["target"], row["settings"]) == ("every destination", "timeout: 5s, retries: {attempts: 2}")


def test_other_weights_change_nothing_else() -> None:
    changed = reweighted(ROUTE, 1, [1, 1, 0])
    assert [each["weight"] for each in changed["spec"]["rules"][1]["split"]] == [1, 1, 0]
    assert [each["weight"] for each in ROUTE["spec"]["rules"][1]["split"]] == [9, 1, 0]
    assert changed["spec"]["rules"][0] == ROUTE["spec"]["rules"][0]


@pytest.mark.parametrize("weights", [[0, 0, 0], [1, 2], [1, -1, 1], [1, 1001, 1]])
def test_weights_that_are_none_are_refused(weights: list[int]) -> None:
    with pytest.raises(InvalidRequest, match="weight"):
        reweighted(ROUTE, 1, weights)


def test_the_manifest_to_edit_is_that_resource_at_that_version() -> None:
    text = manifest_of(ROUTE)
    [document] = parse_documents(text)
    assert document.resource.metadata.resource_version == "42"
    assert "generation" not in text
    check_edited(text, ROUTE)


@pytest.mark.parametrize(
    ("found", "replaced", "told"),
    [
        ("name: summarizer", "name: other", "here Route 'summarizer' is edited"),
        ("resourceVersion: '42'", "resourceVersion: '41'", "leave metadata.resourceVersion"),
        ("  resourceVersion: '42'\n", "", "leave metadata.resourceVersion"),
    ],
)
def test_another_resource_or_version_is_refused(found: str, replaced: str, told: str) -> None:
    text = manifest_of(ROUTE)
    assert found in text
    with pytest.raises(InvalidRequest, match=told):
        check_edited(text.replace(found, replaced, 1), ROUTE)


def test_a_second_resource_is_refused() -> None:
    text = manifest_of(ROUTE)
    with pytest.raises(InvalidRequest, match="2 resources"):
        check_edited(f"{text}---\n{text.replace('name: summarizer', 'name: other')}", ROUTE)


def test_mistakes_are_told_with_their_line() -> None:
    text = manifest_of(ROUTE).replace("weight: 9", "weight: many")
    with pytest.raises(InvalidResource) as raised:
        check_edited(text, ROUTE)
    [mistake] = mistakes_in(raised.value, text)
    assert mistake.text == "weight: many"
    assert text.splitlines()[mistake.line - 1].strip() == mistake.text
    assert mistake.field.endswith("weight")


def test_mistakes_without_a_place_come_first_and_places_that_are_none_quote_nothing() -> None:
    told: list[dict[str, Any]] = [
        {"line": 99, "message": "b"},
        {"message": "a", "field": None},
        {"line": 1, "message": "c"},
    ]
    assert mistakes(told, "one\ntwo") == [
        Mistake(0, "", "", "a"),
        Mistake(1, "one", "", "c"),
        Mistake(99, "", "", "b"),
    ]


def test_a_difference_shows_what_goes_and_what_comes() -> None:
    before, after = manifest_of(ROUTE), manifest_of(reweighted(ROUTE, 1, [8, 1, 0]))
    lines = difference(before, after)
    assert [each.text.strip() for each in lines if each.sign == "-"] == ["weight: 9"]
    assert [each.text.strip() for each in lines if each.sign == "+"] == ["weight: 8"]
    assert lines[0].sign == "@"
    assert difference(before, before) == []


def test_all_of_a_new_resource_comes() -> None:
    assert {each.sign for each in difference(None, "a: 1\nb: 2\n")} == {"@", "+"}
