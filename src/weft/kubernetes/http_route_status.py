"""What the status of an HTTPRoute says of its parents in the mesh. Pure.

https://gateway-api.sigs.k8s.io/reference/spec/#routeparentstatus. A list that all controllers share: entries
of others stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from weft.kubernetes.controller.conditions import CONTROLLER, Condition, found_condition, with_conditions
from weft.kubernetes.controller.kinds import Document
from weft.kubernetes.custom_resources import READY
from weft.kubernetes.http_route_translation import MAX_PARENTS, Verdict
from weft.kubernetes.problem import Problem

ACCEPTED: Final = "Accepted"
RESOLVED: Final = "ResolvedRefs"
PARTIAL: Final = "PartiallyInvalid"
PENDING: Final = "Pending"

_MAX_MESSAGE = 2000


def verdict_conditions(verdict: Verdict, route: Document | None, refused: str | None) -> list[Condition]:
    """What is to be said of one parent.

    `route` is the Route that was made, as the cluster has it; `refused` says why there is none.
    """
    if verdict.refusal is not None:
        return [_condition(ACCEPTED, "False", verdict.refusal)]
    if refused is not None:
        return [_condition(ACCEPTED, "False", Problem("Refused", refused))]
    conditions = [_accepted(str(verdict.type), route)]
    if verdict.unresolved:
        text = "; ".join(each.message for each in verdict.unresolved)
        told = f"{text}. Calls that would go there are answered with 500"
        conditions.append(_condition(RESOLVED, "False", Problem(verdict.unresolved[0].reason, told)))
    else:
        conditions.append(_condition(RESOLVED, "True", Problem(RESOLVED, "all that is named is there")))
    if verdict.dropped:
        # The words with which it begins are the Gateway API's.
        text = f"Dropped Rule: {'; '.join(verdict.dropped)}"
        conditions.append(_condition(PARTIAL, "True", Problem("UnsupportedValue", text)))
    return conditions


def _accepted(agent_type: str, route: Document | None) -> Condition:
    ready = None if route is None else found_condition(route, READY)
    generation = None if route is None else route["metadata"].get("generation")
    if ready is None or ready.get("observedGeneration") != generation or ready["status"] == "Unknown":
        message = "it is on its way into the mesh" if ready is None else str(ready.get("message") or "")
        return _condition(ACCEPTED, "Unknown", Problem(PENDING, message))
    if ready["status"] == "True":
        message = f"calls to type {agent_type!r} go by it; its hostnames make no difference"
        return _condition(ACCEPTED, "True", Problem(ACCEPTED, message))
    return _condition(ACCEPTED, "False", Problem("Refused", str(ready.get("message") or "")))


def _condition(type_: str, status: Any, problem: Problem) -> Condition:
    return Condition(type_, status, problem.reason, problem.message[:_MAX_MESSAGE])


def route_status(
    http_route: Document, told: Iterable[tuple[Mapping[str, Any], list[Condition]]], now: datetime
) -> list[Document] | None:
    """`status.parents` with what is `told` of the mesh's parents; None where it says that already."""
    before: list[Document] = list((http_route.get("status") or {}).get("parents") or ())
    generation = int(http_route["metadata"].get("generation") or 0)
    others = [each for each in before if each.get("controllerName") != CONTROLLER]
    mine = [each for each in before if each.get("controllerName") == CONTROLLER]
    after = list(others)
    for parent, conditions in told:
        types = {each.type for each in conditions}
        earlier = next((each for each in mine if each.get("parentRef") == parent), {})
        kept = [each for each in earlier.get("conditions") or () if each["type"] in types]
        after.append(
            {
                "parentRef": dict(parent),
                "controllerName": CONTROLLER,
                "conditions": with_conditions(kept, conditions, generation=generation, now=now),
            }
        )
    after = after[:MAX_PARENTS]
    return None if _sorted(after) == _sorted(before) else after


def new_problems(http_route: Document, told: Iterable[Condition]) -> Iterator[Condition]:
    """What is wrong of what is `told` of an HTTPRoute, as far as its status does not say so already."""
    known = {
        (each["type"], each["status"], each["reason"])
        for parent in (http_route.get("status") or {}).get("parents") or ()
        if parent.get("controllerName") == CONTROLLER
        for each in parent.get("conditions") or ()
    }
    for each in told:
        wrong = each.status == "False" or each.type == PARTIAL
        if wrong and (each.type, each.status, each.reason) not in known:
            yield each


def _sorted(parents: Iterable[Document]) -> list[str]:
    """In an order of their own: other controllers put theirs where they want."""
    return sorted(repr(_plain(each)) for each in parents)


def _plain(value: Any) -> Any:
    """The same with the fields of every mapping in order."""
    if isinstance(value, dict):
        return {name: _plain(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
