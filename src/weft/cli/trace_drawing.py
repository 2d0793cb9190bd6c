"""Traces as people read them in a terminal: a list, and one as a waterfall."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from weft.cli.show import printable, shortened, table
from weft.cli.times import short
from weft.dashboard.pages.spans import Span, spans_of
from weft.dashboard.pages.waterfall import Row, laid_out

COLUMNS = ("TRACE", "BEGAN", "TOOK", "NAME", "BEGUN BY", "SPANS", "ERRORS", "SERVICES")

_NARROWEST_BARS = 20
_WIDEST_BARS = 60
_NAMES = 60
"""Columns that names get at most, with what they are indented by."""

_OTHER_COLUMNS = 40  # what service, time and error take, about
_DEEPEST = 20  # beyond that nothing is indented further
_SERVICES_SHOWN = 5


def traces_table(traces: Iterable[Mapping[str, Any]]) -> Table:
    """Traces, one in a row."""
    return table(COLUMNS, (_summary(each) for each in traces))


def _summary(trace: Mapping[str, Any]) -> tuple[str | Text, ...]:
    services = trace["services"]
    more = f" +{len(services) - _SERVICES_SHOWN}" if len(services) > _SERVICES_SHOWN else ""
    return (
        trace["id"],
        _moment(trace["start"]),
        short(trace["duration"]),
        shortened(trace["name"], _NAMES),
        trace["service"],
        str(trace["spans"]),
        Text(str(trace["errors"]), style="red") if trace["errors"] else Text(""),
        ", ".join(services[:_SERVICES_SHOWN]) + more,
    )


def facts(trace: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What there is to say of a trace as a whole."""
    spans = spans_of(trace)
    failed = sum(each.failed for each in spans)
    yield "Trace", str(trace.get("id", ""))
    yield "Began", _moment(trace.get("start", 0.0))
    yield "Took", short(float(trace.get("duration") or 0.0))
    yield "Spans", f"{len(spans)}{f', {failed} of them failed' if failed else ''}"
    contexts = {str(each.attributes["weft.context"]) for each in spans if each.attributes.get("weft.context")}
    yield "Conversation", ", ".join(sorted(contexts))


def notes(trace: Mapping[str, Any]) -> Iterator[str]:
    """What is to be known of what is shown."""
    rows = laid_out(spans_of(trace)).rows
    if trace.get("cut"):
        yield "spans were left out: there are too many, or they are too large"
    if any(each.is_orphan for each in rows):
        yield "? before a name: what caused that is not among the spans that were told"
    if any(each.was_moved for each in rows):
        yield "~ after a time: the clock of that machine is another, so the span was moved"


def waterfall_table(trace: Mapping[str, Any], width: int) -> Table:
    """Every span in a row, below what caused it, with a bar where it is in time, in `width` columns."""
    fall = laid_out(spans_of(trace))
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("SPAN", overflow="ellipsis", no_wrap=True, max_width=_NAMES)
    made.add_column("SERVICE", overflow="ellipsis", no_wrap=True)
    made.add_column("TOOK", justify="right", no_wrap=True)
    bars = max(_NARROWEST_BARS, min(_WIDEST_BARS, width - _NAMES - _OTHER_COLUMNS))
    made.add_column(f"0{short(fall.length):>{bars - 1}}", no_wrap=True, min_width=bars)
    made.add_column("", overflow="fold")
    for row in fall.rows:
        style = "red" if row.span.failed else ""
        made.add_row(
            Text(_name(row), style=style),
            printable(row.span.instance or row.span.service),
            f"{short(row.span.duration)}{'~' if row.was_moved else ''}",
            Text(_bar(row, bars), style=style or "cyan"),
            Text(_outcome(row.span), style=style),
        )
    return made


def _name(row: Row) -> str:
    doubtful = "? " if row.is_orphan or row.is_circle else ""
    return f"{'  ' * min(row.depth, _DEEPEST)}{doubtful}{printable(row.span.name) or '(no name)'}"


def _bar(row: Row, width: int) -> str:
    """Where a span begins and how long it takes; whatever is short is seen all the same."""
    first = min(width - 1, math.floor(row.left * width))
    length = max(1, min(width - first, round(row.width * width)))
    return f"{' ' * first}{'█' * length}"


def _outcome(span: Span) -> str:
    """Why it failed, or what it was answered with."""
    said = [
        str(span.attributes[each])
        for each in ("http.response.status_code", "weft.error")
        if span.attributes.get(each) and (span.failed or each == "weft.error")
    ]
    message = shortened(span.message) if span.failed else ""
    return printable(" ".join([*said, message] if message not in said else said).strip())


def _moment(at: float) -> str:
    """A time here."""
    try:
        return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return ""
