"""JSON Patches (RFC 6902) as an API server applies them: what webhooks may use, and no more."""

from __future__ import annotations

from copy import deepcopy
from typing import Any


def applied(document: Any, patch: list[dict[str, Any]]) -> Any:
    """`document` with `patch` applied. Raises KeyError or IndexError where an operation has no target."""
    found = {"": deepcopy(document)}
    for operation in patch:
        steps = [_unescaped(each) for each in operation["path"].split("/")]
        holder: Any = found
        for step in steps[:-1]:
            holder = holder[_index(holder, step)]
        _do(operation, holder, steps[-1])
    return found[""]


def _do(operation: dict[str, Any], holder: Any, step: str) -> None:
    at = _index(holder, step)
    match operation["op"]:
        case "add" if isinstance(holder, list):
            if not 0 <= at <= len(holder):
                raise IndexError(operation["path"])
            holder.insert(at, deepcopy(operation["value"]))
        case "add":
            holder[at] = deepcopy(operation["value"])
        case "replace":
            holder[at]
            holder[at] = deepcopy(operation["value"])
        case "remove":
            del holder[at]
        case other:
            raise ValueError(f"no operation that is used here: {other}")


def _index(holder: Any, step: str) -> Any:
    if not isinstance(holder, list):
        return step
    if not step.isdecimal() or (len(step) > 1 and step[0] == "0"):
        raise IndexError(step)
    return int(step)


def _unescaped(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")
