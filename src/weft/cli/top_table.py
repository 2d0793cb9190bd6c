"""What is called, and who answers, one destination in a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from rich.table import Table
from rich.text import Text

from weft.cli.show import table
from weft.cli.times import short

COLUMNS = (
    "DESTINATION",
    "KIND",
    "CALLS/S",
    "ERRORS",
    "REFUSED/S",
    "P50",
    "P99",
    "IN FLIGHT",
    "INSTANCES",
    "CALLERS",
)

_MANY_ERRORS = 0.05
_CALLERS_SHOWN = 3


class Order(StrEnum):
    """By what rows are sorted, the largest first; names alphabetically."""

    CALLS = "calls"
    ERRORS = "errors"
    P50 = "p50"
    P99 = "p99"
    IN_FLIGHT = "in-flight"
    NAME = "name"


_KEYS: Mapping[Order, Callable[[dict[str, Any]], Any]] = {
    Order.CALLS: lambda row: -row["callsPerSecond"],
    Order.ERRORS: lambda row: -row["errorsPerSecond"],
    Order.P50: lambda row: -(row["p50"] or 0),
    Order.P99: lambda row: -(row["p99"] or 0),
    Order.IN_FLIGHT: lambda row: -(row["inFlight"] or 0),
    Order.NAME: lambda _row: 0,
}


def rows(
    destinations: Iterable[Mapping[str, Any]], agents: Iterable[Mapping[str, Any]], order: Order
) -> list[dict[str, Any]]:
    """What the API says of `destinations`, with the agents of each type; those nobody calls are there too.

    The control plane comes last, by whichever order: nobody calls it for its own sake.
    """
    instances: dict[str, list[Mapping[str, Any]]] = {}
    for each in agents:
        instances.setdefault(each["type"], []).append(each)
    found = [{**each, **_staff(each, instances)} for each in destinations]
    called = {each["destination"] for each in found if each["kind"] == "agent"}
    for name in instances.keys() - called:
        quiet = {**_QUIET, "destination": name}
        found.append({**quiet, **_staff(quiet, instances)})
    return sorted(
        found, key=lambda row: (row["kind"] == "control", _KEYS[order](row), row["destination"], row["kind"])
    )


_QUIET: dict[str, Any] = {
    "kind": "agent",
    "callsPerSecond": 0.0,
    "errorsPerSecond": 0.0,
    "refusedPerSecond": 0.0,
    "p50": None,
    "p90": None,
    "p99": None,
    "calls": 0,
    "errors": 0,
    "callers": [],
}


def _staff(row: Mapping[str, Any], instances: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Who answers: how many there are, how many are healthy, and the calls they have now."""
    found = instances.get(row["destination"]) if row["kind"] == "agent" else None
    if found is None:
        return {"instances": None, "healthy": None, "inFlight": None}
    return {
        "instances": len(found),
        "healthy": sum(each["status"] == "healthy" for each in found),
        "inFlight": sum(each["inFlight"] for each in found),
    }


def top_table(found: Sequence[Mapping[str, Any]], most: int | None = None) -> Table:
    """The rows, at most so many; that others are left out is said below."""
    shown = found if most is None or len(found) <= most else found[: max(1, most - 1)]
    made = table(COLUMNS, (_row(each) for each in shown))
    for column in made.columns[2:9]:
        column.justify = "right"
    if len(shown) < len(found):
        made.caption = f"{len(found) - len(shown)} more"
        made.caption_justify = "left"
    return made


def _row(row: Mapping[str, Any]) -> tuple[str | Text, ...]:
    staff = row["instances"]
    return (
        row["destination"] or "(none)",
        row["kind"] or "unknown",
        f"{row['callsPerSecond']:.1f}",
        _errors(row),
        f"{row['refusedPerSecond']:.1f}" if row["refusedPerSecond"] else "",
        short(row["p50"]),
        short(row["p99"]),
        "" if row["inFlight"] is None else str(row["inFlight"]),
        "" if staff is None else _healthy(row["healthy"], staff),
        _callers(row["callers"]),
    )


def _errors(row: Mapping[str, Any]) -> Text:
    if not row["errors"]:
        return Text("")
    share = row["errors"] / max(1, row["calls"])
    return Text(f"{share:.1%}", style="red" if share >= _MANY_ERRORS else "yellow")


def _healthy(healthy: int, instances: int) -> Text:
    style = "green" if healthy == instances else "yellow" if healthy else "red"
    return Text(f"{healthy}/{instances}", style=style)


def _callers(callers: Sequence[str]) -> str:
    more = f" +{len(callers) - _CALLERS_SHOWN}" if len(callers) > _CALLERS_SHOWN else ""
    return ", ".join(callers[:_CALLERS_SHOWN]) + more
