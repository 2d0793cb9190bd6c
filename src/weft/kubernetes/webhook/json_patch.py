"""What changed from one document to another, as a JSON Patch (RFC 6902). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Operation = dict[str, Any]
"""One member of a patch."""


def json_patch(before: Any, after: Any) -> list[Operation]:
    """The operations that make `after` of `before`, in their order. Both are of JSON types.

    They go no wider than what differs, so that others may change the rest at the same time.
    """
    return list(_changes(before, after, ""))


def _changes(before: Any, after: Any, path: str) -> Iterator[Operation]:
    if _same(before, after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _of_members(before, after, path)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _of_items(before, after, path)
    else:
        yield {"op": "replace", "path": path, "value": after}


def _of_members(before: dict[str, Any], after: dict[str, Any], path: str) -> Iterator[Operation]:
    for name, value in before.items():
        place = f"{path}/{_escaped(name)}"
        if name in after:
            yield from _changes(value, after[name], place)
        else:
            yield {"op": "remove", "path": place}
    for name, value in after.items():
        if name not in before:
            yield {"op": "add", "path": f"{path}/{_escaped(name)}", "value": value}


def _of_items(before: list[Any], after: list[Any], path: str) -> Iterator[Operation]:
    """What stands alike at both ends stays; what is between is changed, put in or taken out."""
    first = _alike(before, after)
    last = _alike(before[first:][::-1], after[first:][::-1])
    old, new = before[first : len(before) - last], after[first : len(after) - last]
    if len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True), start=first):
            yield from _changes(one, other, f"{path}/{index}")
        return
    for index in reversed(range(first, first + len(old))):
        yield {"op": "remove", "path": f"{path}/{index}"}
    for index, value in enumerate(new, start=first):
        yield {"op": "add", "path": f"{path}/{index}", "value": value}


def _alike(one: list[Any], other: list[Any]) -> int:
    """How many items are the same, from the beginning on."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if not _same(left, right):
            break
        count += 1
    return count


def _same(one: Any, other: Any) -> bool:
    """Whether both are the same in JSON, where `true` is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _escaped(name: str) -> str:
    """A member's name in a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
