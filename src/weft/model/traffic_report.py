"""What a sidecar tells of the calls that its agent made, every two seconds: the format, and its limits.

A report holds what was added since the one before it, never totals. Who made the calls is not in it: that is
whoever may send to the subject on which it comes.

```json
{"v": 1, "id": "5f3a-17", "at": 1790000000.1, "seconds": 2.0, "inFlight": 3, "calls": [
  {"d": "summarizer", "k": "agent", "v": "1.2", "r": "default", "t": "",
   "codes": {"200": 12, "503": 1}, "flags": {"UF": 1}, "errors": 1, "refused": 0, "abandoned": 0,
   "sumMs": 120, "buckets": [0, 3, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]}]}
```

Buckets may come later than the calls they are about: Envoy adds its histograms up once a second.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from weft.errors import InvalidRequest
from weft.model.spiffe import Role

VERSION: Final = 1

TRAFFIC_SIGNALS: Final = "traffic"
"""The name under which reports are sent; the key is the subject of the sender's identity."""

BOUNDS_MS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 15000, 60000, 300000)
"""Upper bounds of the buckets in milliseconds; there is one bucket more, for what took longer."""

BUCKETS: Final = len(BOUNDS_MS) + 1

MAX_ENTRIES: Final = 500
"""In one report; the rest is added up in an entry whose destination is OTHER."""

MAX_REPORT_BYTES: Final = 512 * 1024
MAX_NAME: Final = 200
"""Characters of a name."""
MAX_CODES: Final = 64
"""Different codes, and different flags, of one entry."""
MAX_COUNT: Final = 100_000_000
"""The largest count in a report: as many calls as no Envoy makes between two of them."""

OTHER: Final = "(other)"
"""Stands for everything beyond a limit."""

_MAX_ID = 64
_INTEGERS = frozenset({int})
"""A bool is an int to Python, and no count."""
_NO_ANSWER = 0
_REFUSALS = frozenset({403, 429})
_SERVER_ERROR = 500
_CALLER_LEFT = "DC"
_BROKEN_OFF = frozenset({"UC", "UR", "UPE", "UT", "SI", "UMSDR", "DPE"})
"""Envoy's flags of an answer that began and did not end well."""


class TrafficKind(StrEnum):
    """What was called."""

    AGENT = "agent"
    CAPABILITY = "capability"
    TOOL = "tool"
    """A tool, resource or prompt of an MCP server, by way of `tools.mesh`."""
    MODEL = "model"
    OUTSIDE = "outside"
    """A host that is none of the mesh's."""
    CONTROL = "control"
    """The control plane."""
    UNKNOWN = ""
    """What there is not: no destination was found for the call."""


class Outcome(StrEnum):
    """How a call ended, as far as the golden signals go."""

    OK = "ok"
    """Answered, whatever the answer: a 404 is the callee's to give."""
    ERROR = "error"
    """5xx, no answer, or an answer that broke off."""
    REFUSED = "refused"
    """403 or 429: not allowed, or too much."""
    ABANDONED = "abandoned"
    """The caller hung up before there was an answer, as those do who need only the first of several."""


def outcome_of(code: int, flags: str) -> Outcome:
    """How a call ended, by Envoy's status (0: none) and response flags (`UF,URX`; `-`: none)."""
    if code >= _SERVER_ERROR:
        return Outcome.ERROR
    if code in _REFUSALS:
        return Outcome.REFUSED
    told = frozenset(flags.split(","))
    if code == _NO_ANSWER:
        return Outcome.ABANDONED if _CALLER_LEFT in told else Outcome.ERROR
    return Outcome.ERROR if told & _BROKEN_OFF else Outcome.OK


def caller_of(sender: str) -> str:
    """What the calls of the holder of an identity are told under; `sender` is its `identity_subject`.

    That is an agent's type, or `operator/<name>` for programs that only call. Raises InvalidRequest for the
    subject of anybody else.
    """
    match sender.split("."):
        case [Role.AGENT, agent_type, _]:
            return agent_type
        case [Role.OPERATOR, operator, _]:
            return f"{Role.OPERATOR}/{operator}"
    raise InvalidRequest(f"{sender:.200} is no subject of an agent or an operator")


class Edge(NamedTuple):
    """What was called, and how it was routed there. Texts have MAX_NAME characters at most, all printable."""

    destination: str
    """An agent's type, a capability, a pool of models, a server of tools; empty where there was none."""
    kind: TrafficKind
    version: str = ""
    """Of the instance that answered; empty if none did."""
    route: str = ""
    """The name of the route's rule."""
    tool: str = ""
    """The name of the tool, where it is a call of one that the mesh knows."""


@dataclass(slots=True)
class Calls:
    """What was counted of an edge."""

    codes: dict[str, int] = field(default_factory=dict)
    """Calls by status; `0`: no answer."""
    flags: dict[str, int] = field(default_factory=dict)
    """Calls by Envoy's response flags, without those that have none."""
    errors: int = 0
    refused: int = 0
    abandoned: int = 0
    sum_ms: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    """How many took how long, by the bounds; each call in one."""

    @property
    def calls(self) -> int:
        """All of them."""
        return sum(self.codes.values())

    def count(self, code: int, flags: str, calls: int) -> None:
        """Add `calls` that ended so."""
        _add(self.codes, str(code), calls)
        if flags not in {"", "-"}:
            _add(self.flags, flags, calls)
        match outcome_of(code, flags):
            case Outcome.ERROR:
                self.errors += calls
            case Outcome.REFUSED:
                self.refused += calls
            case Outcome.ABANDONED:
                self.abandoned += calls
            case Outcome.OK:
                pass

    def add(self, other: Calls) -> None:
        """Add what `other` has counted."""
        for code, calls in other.codes.items():
            _add(self.codes, code, calls)
        for flags, calls in other.flags.items():
            _add(self.flags, flags, calls)
        self.errors += other.errors
        self.refused += other.refused
        self.abandoned += other.abandoned
        self.sum_ms += other.sum_ms
        self.buckets = [mine + its for mine, its in zip(self.buckets, other.buckets, strict=True)]


def _add(counts: dict[str, int], name: str, calls: int) -> None:
    if name not in counts and len(counts) >= MAX_CODES - 1:
        name = OTHER
    counts[name] = counts.get(name, 0) + calls


@dataclass(frozen=True, slots=True)
class TrafficReport:
    """What was added in `seconds`."""

    id: str
    """Of this report: one that comes a second time is the same one again."""
    at: float
    """Seconds since 1970, by the sender's clock."""
    seconds: float
    in_flight: int
    """Calls that its agent has at hand."""
    calls: Mapping[Edge, Calls]

    def encode(self) -> bytes:
        """The report as JSON. What goes beyond the limits is added up as OTHER; the busiest stay."""
        kept = self._within(MAX_ENTRIES)
        while len(data := self._json(kept)) > MAX_REPORT_BYTES:
            kept = self._within(len(kept) // 2)
        return data

    def _within(self, entries: int) -> dict[Edge, Calls]:
        if len(self.calls) <= entries:
            return dict(self.calls)
        busiest = sorted(self.calls.items(), key=lambda each: each[1].calls, reverse=True)
        rest = Calls()
        for _, each in busiest[entries - 1 :]:
            rest.add(each)
        return dict(busiest[: entries - 1]) | {Edge(OTHER, TrafficKind.UNKNOWN): rest}

    def _json(self, calls: Mapping[Edge, Calls]) -> bytes:
        document = {
            "v": VERSION,
            "id": self.id,
            "at": round(self.at, 3),
            "seconds": round(self.seconds, 3),
            "inFlight": self.in_flight,
            "calls": [_entry(edge, each) for edge, each in calls.items()],
        }
        return json.dumps(document, separators=(",", ":")).encode()


def parse_report(data: bytes) -> TrafficReport:
    """The report in `data`. Raises InvalidRequest for anything that is none, whole: nothing of it counts."""
    if len(data) > MAX_REPORT_BYTES:
        raise InvalidRequest(f"a traffic report has at most {MAX_REPORT_BYTES} bytes")
    try:
        return _report(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidRequest(f"not a traffic report: {error!r}") from error


def _entry(edge: Edge, calls: Calls) -> dict[str, Any]:
    return {
        "d": edge.destination,
        "k": edge.kind.value,
        "v": edge.version,
        "r": edge.route,
        "t": edge.tool,
        "codes": calls.codes,
        "flags": calls.flags,
        "errors": calls.errors,
        "refused": calls.refused,
        "abandoned": calls.abandoned,
        "sumMs": calls.sum_ms,
        "buckets": calls.buckets,
    }


def _report(document: dict[str, Any]) -> TrafficReport:
    if document["v"] != VERSION:
        raise ValueError(f"version {document['v']!r:.20}")
    entries = document["calls"]
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise ValueError(f"calls is not a list of at most {MAX_ENTRIES}")
    calls = {_edge(each): _calls(each) for each in entries}
    if len(calls) != len(entries):
        raise ValueError("the same calls are told twice")
    return TrafficReport(
        _text(document["id"], _MAX_ID),
        _seconds(document["at"]),
        _seconds(document["seconds"]),
        _count(document["inFlight"]),
        calls,
    )


def _edge(entry: dict[str, Any]) -> Edge:
    return _checked_edge(entry["d"], entry["k"], entry["v"], entry["r"], entry["t"])


@lru_cache(maxsize=8192)
def _checked_edge(destination: Any, kind: Any, version: Any, route: Any, tool: Any) -> Edge:
    """The same again and again, from thousands of sidecars: it is looked at once."""
    return Edge(_text(destination), TrafficKind(kind), _text(version), _text(route), _text(tool))


def _calls(entry: dict[str, Any]) -> Calls:
    buckets = entry["buckets"]
    if not isinstance(buckets, list) or len(buckets) != BUCKETS:
        raise ValueError(f"there are {BUCKETS} buckets")
    _check_counts(buckets)
    calls = Calls(
        _counts(entry["codes"]),
        _counts(entry["flags"]),
        _count(entry["errors"]),
        _count(entry["refused"]),
        _count(entry["abandoned"]),
        _count(entry["sumMs"], MAX_COUNT * 1000),
        buckets,
    )
    if calls.errors + calls.refused + calls.abandoned > calls.calls:
        raise ValueError("more calls failed than there were")
    return calls


def _counts(counts: Any) -> dict[str, int]:
    if not isinstance(counts, dict) or len(counts) > MAX_CODES:
        raise ValueError(f"counts are an object of at most {MAX_CODES}")
    if not counts:
        return {}
    if any(len(name) > MAX_NAME or not name.isprintable() for name in counts):
        raise ValueError("a name in counts is none")
    _check_counts(counts.values())
    return counts


def _check_counts(values: Collection[Any]) -> None:
    """All at once: there are thousands of them in a second."""
    if values and (not _INTEGERS.issuperset(map(type, values)) or min(values) < 0 or max(values) > MAX_COUNT):
        raise ValueError("not all of these are counts")


def _count(value: Any, most: int = MAX_COUNT) -> int:
    # A bool is an int to Python, and none to us.
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in {int, float} or not math.isfinite(value) or not 0 <= value < 1e11:
        raise ValueError(f"{value!r:.40} is no time")
    return float(value)


def _text(value: Any, most: int = MAX_NAME) -> str:
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise ValueError(f"{value!r:.40} is no name")
    return value
