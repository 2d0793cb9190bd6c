"""What Envoy has counted of the calls of its agent, read from the text of its admin interface.

A line is `weft.calls.@d.summarizer.@k.type/summarizer.@v.1.@r.default.@t..@c.200.@f.-: 12`, or for times
`weft.call_ms.@d....@t.: B1(0,0) B2(1,7) …`, each bucket with what it and those before it hold since the last
flush, and since Envoy began. `controlplane.translate.call_stats` says what the tags are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from weft.model.traffic_report import BUCKETS, MAX_NAME, Edge, TrafficKind

FILTER: Final = r"^(weft|weftall)\.|^cluster\.agent\.upstream_rq(_pending)?_active$"
"""Regular expression of the statistics that are read."""

_ENDED, _TOOK, _SPREAD = "calls", "time_ms", "call_ms"
_WHOM = r"\.@d\.(.*)\.@k\.(.*)\.@v\.(.*)\.@r\.(.*)\.@t\.(.*)"
_CALLS: Final = re.compile(rf"weft\.calls{_WHOM}\.@c\.(\d{{1,3}})\.@f\.(.*)")
_TIME: Final = re.compile(rf"weft\.(time_ms|call_ms){_WHOM}")
_BUCKET: Final = re.compile(r"B[0-9.e+]+\(\d+,(\d+)\)")
_ALL: Final = "weftall.calls"
_IN_FLIGHT: Final = ("cluster.agent.upstream_rq_active", "cluster.agent.upstream_rq_pending_active")

_TUNNEL_CLUSTER: Final = "mesh"

CONTROL: Final = "control"
"""The control plane as a destination."""

_MAX_NAMES: Final = 50_000
"""Names that are remembered, what they say once read; Envoy has some thousands at most."""
_MAX_VALUE: Final = 2**63


@dataclass(frozen=True, slots=True)
class Ended:
    """So many calls ended that way."""

    edge: Edge
    code: str
    """The status; `0`: no answer."""
    flags: str
    """Envoy's response flags; empty without any."""
    calls: int


@dataclass(frozen=True, slots=True)
class Took:
    """So many milliseconds were spent on calls."""

    edge: Edge
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Spread:
    """So many calls, in each bucket."""

    edge: Edge
    buckets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Everything:
    """So many calls ended, in whichever way, those included of which nothing else is told."""

    calls: int


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """So many tunnels into the mesh ended: the calls that came through are counted by themselves."""

    tunnels: int


Added = Ended | Took | Spread | Everything | Tunnelled
"""What was counted since the last reading."""

_Name = tuple[str, Edge, str, str] | None
"""What a name stands for: the statistic, and its tags; None: nothing that is read here."""


class EnvoyStats:
    """Reads again and again, and tells what was added. One for the whole life of a sidecar."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Calls that the agent had at hand at the last reading."""
        self.strange = 0
        """Lines so far that could not be read."""
        self._names: dict[str, _Name] = {}
        self._values: dict[str, int] = {}
        self._spreads: dict[str, tuple[str, tuple[int, ...]]] = {}

    def begin_again(self) -> None:
        """Another Envoy is asked from now on, which has counted nothing yet."""
        self._values.clear()
        self._spreads.clear()

    def read(self, text: str) -> list[Added]:
        """What was added since the last reading; `text` is all that Envoy has.

        What has become less, or has not been there, has begun at nothing.
        """
        if len(self._names) > _MAX_NAMES:
            self._names.clear()
        before, self._values = self._values, {}
        spreads, self._spreads = self._spreads, {}
        self.in_flight = 0
        found: list[Added] = []
        for line in text.splitlines():
            name, _, value = line.rpartition(": ")
            if name in _IN_FLIGHT:
                self.in_flight += self._number(value) or 0
                continue
            known = self._known(name)
            if known is None:
                continue
            if known[0] == _SPREAD:
                added = self._spread(name, known[1], value, spreads.get(name))
            else:
                added = self._counted(name, known, value, before.get(name, 0))
            if added is not None:
                found.append(added)
        return found

    def _counted(self, name: str, known: tuple[str, Edge, str, str], value: str, former: int) -> Added | None:
        number = self._number(value)
        if number is None:
            return None
        self._values[name] = number
        added = number - former if number >= former else number
        if not added:
            return None
        statistic, edge, code, flags = known
        if statistic == _ENDED:
            return Tunnelled(added) if edge is _TUNNEL else Ended(edge, code, flags, added)
        if edge is _TUNNEL:
            return None
        return Took(edge, added) if statistic == _TOOK else Everything(added)

    def _spread(
        self, name: str, edge: Edge, value: str, former: tuple[str, tuple[int, ...]] | None
    ) -> Added | None:
        if former is not None and former[0] == value:  # most of the time, and reading it takes long
            self._spreads[name] = former
            return None
        buckets = _disjoint(value)
        if buckets is None:
            self.strange += value != "No recorded values"
            return None
        self._spreads[name] = (value, buckets)
        counted = former[1] if former is not None else (0,) * BUCKETS
        added = tuple(now - then for now, then in zip(buckets, counted, strict=True))
        if min(added) < 0:
            added = buckets
        return Spread(edge, added) if any(added) and edge is not _TUNNEL else None

    def _number(self, value: str) -> int | None:
        if len(value) < 20 and value.isascii() and value.isdecimal():
            return int(value)
        self.strange += 1
        return None

    def _known(self, name: str) -> _Name:
        try:
            return self._names[name]
        except KeyError:
            known = self._names[name] = _parsed(name)
            self.strange += known is None
            return known


def _parsed(name: str) -> _Name:
    if name == _ALL:
        return "all", _NOWHERE, "", ""
    if (found := _CALLS.fullmatch(name)) is not None:
        *whom, code, flags = found.groups()
        return _ENDED, _edge(*whom), code, "" if flags == "-" else _name(flags)
    if (found := _TIME.fullmatch(name)) is not None:
        statistic, *whom = found.groups()
        return statistic, _edge(*whom), "", ""
    return None


def _edge(destination: str, cluster: str, version: str, route: str, tool: str) -> Edge:
    if cluster == _TUNNEL_CLUSTER:
        return _TUNNEL
    kind = TrafficKind.TOOL if tool else kind_of(cluster)
    if kind is TrafficKind.CONTROL:
        destination = CONTROL  # which answers for others, too: with their cards, with the lists of all tools
    return Edge(_name(destination), kind, _name(version), _name(route), _name(tool))


def kind_of(cluster: str) -> TrafficKind:
    """What a call was for that Envoy sent to `cluster`; empty: it sent it nowhere."""
    match cluster.removeprefix("context/").partition("/")[0]:
        case "type":
            return TrafficKind.AGENT
        case "capability":
            return TrafficKind.CAPABILITY
        case "llm" | "provider":
            return TrafficKind.MODEL
        case "control":
            return TrafficKind.CONTROL
        case "" | "none":
            return TrafficKind.UNKNOWN
    return TrafficKind.OUTSIDE


def _name(text: str) -> str:
    """`text` as a report may have it."""
    text = text[:MAX_NAME]
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def _disjoint(value: str) -> tuple[int, ...] | None:
    """What each bucket holds by itself; None if `value` has no such buckets."""
    sums = [int(each) for each in _BUCKET.findall(value)] if len(value) < 4096 else []
    if len(sums) != BUCKETS or sums[-1] > _MAX_VALUE:
        return None
    found = tuple(each - before for each, before in zip(sums, [0, *sums[:-1]], strict=True))
    return found if min(found) >= 0 else None


_NOWHERE: Final = Edge("", TrafficKind.UNKNOWN)
_TUNNEL: Final = Edge("", TrafficKind.UNKNOWN, route="tunnel")
