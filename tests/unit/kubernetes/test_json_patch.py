"""JSON Patches: what they make of a document, applied as an API server does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.json_patches import applied
from tests.unit.kubernetes.pods import SETTINGS, injected, pod

from weft.kubernetes.webhook.json_patch import json_patch

NAMES = st.sampled_from(["a", "b", "a/b", "~", "~1", "", "0", "é"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "/"]),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(NAMES, inside, max_size=4),
    max_leaves=12,
)


@given(before=VALUES, after=VALUES)
def test_a_patch_makes_the_one_of_the_other(before: Any, after: Any) -> None:
    patch = json_patch(before, after)
    assert json.dumps(applied(before, patch), sort_keys=True) == json.dumps(after, sort_keys=True)


@given(value=VALUES)
def test_where_nothing_differs_there_is_nothing_to_do(value: Any) -> None:
    assert json_patch(value, value) == []


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, [{"op": "replace", "path": "/b", "value": 3}]),
        ({"a": 1}, {"a": True}, [{"op": "replace", "path": "/a", "value": True}]),
        ({"a/b": {"~": 1}}, {"a/b": {}}, [{"op": "remove", "path": "/a~1b/~0"}]),
        ([1, 3], [1, 2, 3], [{"op": "add", "path": "/1", "value": 2}]),
        ([{"n": 1}, {"n": 2}], [{"n": 1}, {"n": 4}], [{"op": "replace", "path": "/1/n", "value": 4}]),
        ({}, {"a": None}, [{"op": "add", "path": "/a", "value": None}]),
    ],
)
def test_it_goes_no_wider_than_what_differs(before: Any, after: Any, patch: Any) -> None:
    assert json_patch(before, after) == patch


def test_a_sidecar_is_put_in_without_a_word_on_the_agents_own_fields() -> None:
    before = pod()
    patch = json_patch(before, injected(before, SETTINGS).pod)
    assert applied(before, patch) == injected(before, SETTINGS).pod
    touched = {each["path"] for each in patch}
    assert {"/spec/initContainers", "/spec/volumes", "/metadata/labels/weft.dev~1agent"} <= touched
    assert not any(path in {"/spec", "/spec/containers", "/spec/containers/0", ""} for path in touched)
    assert not any(path.startswith("/spec/containers/0/image") for path in touched)


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        ({"foo": [1, 3]}, [{"op": "add", "path": "/foo/1", "value": 2}], {"foo": [1, 2, 3]}),
        ({"baz": 1, "foo": 2}, [{"op": "remove", "path": "/baz"}], {"foo": 2}),
        ({"foo": [1, 2, 3]}, [{"op": "remove", "path": "/foo/1"}], {"foo": [1, 3]}),
        ({"baz": 1}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
        ({"/": 9, "~1": 10}, [{"op": "replace", "path": "/~01", "value": 1}], {"/": 9, "~1": 1}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": [1]}], [1]),
    ],
)
def test_patches_are_applied_here_as_by_the_standard(document: Any, patch: Any, result: Any) -> None:
    # Examples of RFC 6902, appendix A.
    assert applied(document, patch) == result


@pytest.mark.parametrize(
    "patch",
    [
        {"op": "add", "path": "/no/where", "value": 1},
        {"op": "add", "path": "/foo/5", "value": 1},
        {"op": "add", "path": "/foo/01", "value": 1},
        {"op": "remove", "path": "/no"},
        {"op": "replace", "path": "/no", "value": 1},
    ],
)
def test_patches_without_a_target_are_errors(patch: Any) -> None:
    with pytest.raises((KeyError, IndexError)):
        applied({"foo": [1]}, [patch])
