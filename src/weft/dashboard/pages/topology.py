"""What the mesh looks like: who there is and who calls whom, by type, and where each is drawn. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

MAX_NODES = 60
"""More are grouped: the least busy ones, by kind."""

FAR_BEHIND = 1000
"""Events that a topic's subscribers have not been given yet, beyond which something is not well."""

KINDS = {
    "caller": "caller",
    "gateway": "gateway",
    "agent": "agent",
    "capability": "capability",
    "tool": "tools",
    "model": "models",
    "queue": "queue",
    "topic": "topic",
    "outside": "outside",
}
"""What a node of each kind is called."""

_LAST = ("tool", "model", "outside")  # drawn behind all who call them
_CONTROL = "control"  # calls of the control plane itself are not what one looks for here


@dataclass(frozen=True, slots=True)
class TopologyNode:
    """Something that calls or is called."""

    key: str
    """Kind and name: `agent/planner`."""
    kind: str
    name: str
    tone: str = "muted"
    """"ok", "warn", "bad", or "muted" where nothing is known of its health."""
    detail: str = ""
    """How it stands, in a few words."""
    calls: float = 0.0
    """A second, out and in."""


@dataclass(frozen=True, slots=True)
class TopologyEdge:
    """Calls from one to another, of all versions and routes."""

    source: str
    target: str
    rate: float = 0.0
    """Calls a second."""
    errors: float = 0.0
    """A second."""
    refused: float = 0.0
    p50: float | None = None
    """Seconds: of the version that was called most."""
    p99: float | None = None
    """Seconds: of the slowest version."""
    calls: int = 0
    """Within the window."""
    events: bool = False
    """It is a subscription, and no call."""

    @property
    def key(self) -> str:
        """Of this edge alone."""
        return f"{self.source} {self.target}"

    @property
    def success(self) -> float | None:
        """The share of calls that succeeded; None without calls."""
        return None if self.rate <= 0 else max(0.0, 1 - (self.errors + self.refused) / self.rate)

    @property
    def tone(self) -> str:
        """How well it goes."""
        success = self.success
        if success is None:
            return "muted"
        return "ok" if success >= 0.99 else "warn" if success >= 0.9 else "bad"


@dataclass(frozen=True, slots=True)
class Topology:
    """All of it."""

    nodes: tuple[TopologyNode, ...] = ()
    edges: tuple[TopologyEdge, ...] = ()


@dataclass(slots=True)
class _Type:
    healthy: int = 0
    total: int = 0
    left: int = 0
    states: set[str] = field(default_factory=set)


def topology(
    instances: Mapping[str, Any],
    traffic: Mapping[str, Any],
    resources: Sequence[Mapping[str, Any]],
    queues: Iterable[Mapping[str, Any]] = (),
    topics: Iterable[Mapping[str, Any]] = (),
) -> Topology:
    """The topology that the API's answers come to; `instances` is what `Followed.news` tells."""
    nodes = {each.key: each for each in _agents(instances)}
    edges = _edges(traffic.get("edges") or ())
    nodes |= {each.key: each for each in _declared(resources, set(nodes))}
    declared = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in resources}
    nodes |= {each.key: each for each in _queues(queues, declared)}
    shown = [each for each in topics if f"topic/{each['name']}" in declared or each["messages"]]
    nodes |= {each.key: each for each in map(_topic, shown)}
    edges += [each for topic in shown for each in _subscriptions(topic) if each.target in nodes]
    for edge in edges:
        for end in (edge.source, edge.target):
            if end not in nodes:
                kind, _, name = end.partition("/")
                nodes[end] = TopologyNode(end, kind, name)
    busy: dict[str, float] = defaultdict(float)
    for edge in edges:
        busy[edge.source] += edge.rate
        busy[edge.target] += edge.rate
    return Topology(
        tuple(replace(each, calls=busy[key]) for key, each in sorted(nodes.items())),
        tuple(sorted(edges, key=lambda each: each.key)),
    )


def grouped(whole: Topology, most: int = MAX_NODES) -> Topology:
    """`whole`, with the least busy nodes of each kind as one if there are too many; unhealthy ones stay."""
    if len(whole.nodes) <= most:
        return whole
    order = sorted(whole.nodes, key=lambda each: (each.tone != "bad", -each.calls, each.key))
    kept = {each.key: each for each in order[: most - len(KINDS)]}
    groups: dict[str, list[TopologyNode]] = defaultdict(list)
    for each in order[most - len(KINDS) :]:
        groups[each.kind].append(each)
    place = {key: key for key in kept}
    for kind, members in groups.items():
        key = f"{kind}/(others)"
        worst = next(
            (tone for tone in ("bad", "warn", "ok") if any(m.tone == tone for m in members)), "muted"
        )
        kept[key] = TopologyNode(
            key, kind, f"{len(members)} more", worst, "the least busy", sum(each.calls for each in members)
        )
        place |= dict.fromkeys((each.key for each in members), key)
    edges: dict[tuple[str, str], list[TopologyEdge]] = defaultdict(list)
    for edge in whole.edges:
        edges[place[edge.source], place[edge.target]].append(edge)
    return Topology(
        tuple(kept[key] for key in sorted(kept)),
        tuple(_together(*ends, many) for ends, many in sorted(edges.items())),
    )


def _agents(instances: Mapping[str, Any]) -> list[TopologyNode]:
    types: dict[str, _Type] = defaultdict(_Type)
    for each in instances.get("items") or ():
        known = types[each["type"]]
        known.total += 1
        known.healthy += each["status"] == "healthy"
        known.states.add(each["status"])
    for each in instances.get("left") or ():
        if each["status"] != "draining":
            types[each["type"]].left += 1
    return [_agent(name, known) for name, known in types.items()]


def _agent(name: str, known: _Type) -> TopologyNode:
    detail = f"{known.healthy} of {known.total} healthy"
    if known.left:
        detail += f", {known.left} gone"
    if known.healthy == 0:
        tone = "bad"
    elif known.left or "unhealthy" in known.states:
        tone = "bad" if known.left >= known.total else "warn"
    else:
        tone = "ok" if known.healthy == known.total else "warn"
    return TopologyNode(f"agent/{name}", "agent", name, tone, detail)


def _declared(resources: Iterable[Mapping[str, Any]], known: set[str]) -> list[TopologyNode]:
    """What is declared and runs without being an instance, or does not run."""
    found = []
    for each in resources:
        kind, name, spec = each["kind"], each["metadata"]["name"], each.get("spec") or {}
        match kind:
            case "Agent" if f"agent/{name}" not in known and (spec.get("run") or {}).get("replicas", 1):
                if spec.get("run"):
                    found.append(TopologyNode(f"agent/{name}", "agent", name, "bad", "none runs"))
            case "Gateway":
                found.append(TopologyNode(f"gateway/{name}", "gateway", name))
            case "ModelPool":
                found.append(TopologyNode(f"model/{name}", "model", name))
    return found


def _queues(queues: Iterable[Mapping[str, Any]], declared: Container[str]) -> list[TopologyNode]:
    """Those that are declared, and of the mesh's own those in which there is something."""
    return [
        TopologyNode(
            f"queue/{each['name']}",
            "queue",
            each["name"],
            "warn" if each["dead"] else "ok",
            f"{each['ready']:,} wait" + (f", {each['dead']:,} dead" if each["dead"] else ""),
        )
        for each in queues
        if f"queue/{each['name']}" in declared or each["ready"] or each["dead"] or each["inFlight"]
    ]


def _topic(topic: Mapping[str, Any]) -> TopologyNode:
    pending = sum(each["pending"] for each in topic["groups"])
    detail = f"{topic['messages']:,} events" + (f", {pending:,} behind" if pending else "")
    tone = "warn" if pending > FAR_BEHIND else "ok"
    return TopologyNode(f"topic/{topic['name']}", "topic", topic["name"], tone, detail)


def _subscriptions(topic: Mapping[str, Any]) -> list[TopologyEdge]:
    subscribers = (group["name"].split("_")[0] for group in topic["groups"])
    return [TopologyEdge(f"topic/{topic['name']}", f"agent/{each}", events=True) for each in subscribers]


def _edges(told: Iterable[Mapping[str, Any]]) -> list[TopologyEdge]:
    many: dict[tuple[str, str], list[TopologyEdge]] = defaultdict(list)
    for each in told:
        target = _target(each)
        if target is None:
            continue
        source = _source(each["caller"])
        edge = TopologyEdge(
            source,
            target,
            each["callsPerSecond"],
            each["errorsPerSecond"],
            each["refusedPerSecond"],
            each["p50"],
            each["p99"],
            each["calls"],
        )
        many[source, target].append(edge)
    return [_together(*ends, edges) for ends, edges in many.items()]


def _source(caller: str) -> str:
    return f"caller/{caller}" if "/" in caller else f"agent/{caller}"


def _target(edge: Mapping[str, Any]) -> str | None:
    kind, name = edge["kind"], edge["destination"]
    if not name or kind == _CONTROL:
        return None
    if kind == "tool":
        return f"agent/{name}" if name else None  # a server of tools is an agent
    return f"{kind if kind in KINDS else 'outside'}/{name}"


def _together(source: str, target: str, edges: Sequence[TopologyEdge]) -> TopologyEdge:
    most = max(edges, key=lambda each: each.calls)
    slowest = [each.p99 for each in edges if each.p99 is not None]
    return TopologyEdge(
        source,
        target,
        sum(each.rate for each in edges),
        sum(each.errors for each in edges),
        sum(each.refused for each in edges),
        most.p50,
        max(slowest) if slowest else None,
        sum(each.calls for each in edges),
        all(each.events for each in edges),
    )


# Where things are drawn.

WIDTH, HEIGHT = 176, 50
"""Of a node."""

ACROSS, DOWN = 110, 18
"""Between columns, and between nodes of one."""

MAX_COLUMN = 14
"""Nodes below each other; then there is a further column."""

_LEAST_WIDTH = 4 * (WIDTH + DOWN) - DOWN
_MAX_LAYERS = 6
_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is."""

    places: Mapping[str, tuple[float, float]]
    """The upper left corner of each node, by its key."""
    width: float
    height: float


def layout(shown: Topology) -> Layout:
    """In layers from the left, callers before whom they call, and below them who has to do with nobody.

    It is the same for the same nodes and edges.
    """
    tied = {end for edge in shown.edges for end in (edge.source, edge.target)}
    alone = [each.key for each in shown.nodes if each.key not in tied]
    columns = _columns(Topology(tuple(each for each in shown.nodes if each.key in tied), shown.edges))
    tallest = max((len(each) for each in columns), default=0)
    height = tallest * (HEIGHT + DOWN)
    places = {}
    for number, column in enumerate(columns):
        top = (height - len(column) * (HEIGHT + DOWN)) / 2
        for index, key in enumerate(column):
            places[key] = (number * (WIDTH + ACROSS), top + index * (HEIGHT + DOWN))
    width = max(_LEAST_WIDTH, len(columns) * (WIDTH + ACROSS) - ACROSS)
    abreast = max(1, int((width + DOWN) // (WIDTH + DOWN)))
    below = height + DOWN if height else 0.0
    for index, key in enumerate(alone):
        row, column_ = divmod(index, abreast)
        places[key] = (column_ * (WIDTH + DOWN), below + row * (HEIGHT + DOWN))
    rows = math.ceil(len(alone) / abreast)
    return Layout(places, width, below + rows * (HEIGHT + DOWN) if rows else height)


def _columns(shown: Topology) -> list[list[str]]:
    layers = _ordered(_layers(shown), shown.edges)
    columns = []
    for layer in layers:
        parts = math.ceil(len(layer) / MAX_COLUMN)
        size = math.ceil(len(layer) / parts) if parts else 1
        columns += [layer[begin : begin + size] for begin in range(0, len(layer), size)]
    return [each for each in columns if each]


def _layers(shown: Topology) -> list[list[str]]:
    """Each node one layer behind the last of its callers, circles aside; tools and models in the last one."""
    calls: dict[str, list[str]] = defaultdict(list)
    for edge in shown.edges:
        if edge.source != edge.target:
            calls[edge.source].append(edge.target)
    depth: dict[str, int] = {}
    called = {edge.target for edge in shown.edges if edge.source != edge.target}
    keys = [each.key for each in shown.nodes]
    for root in [*(key for key in keys if key not in called), *keys]:
        if root not in depth:
            _descend(root, calls, depth)
    deepest = min(_MAX_LAYERS, max(depth.values(), default=0))
    layers: list[list[str]] = [[] for _ in range(deepest + 1)]
    for node in shown.nodes:
        last = node.kind in _LAST and deepest
        layers[deepest if last else min(depth[node.key], deepest)].append(node.key)
    return layers


def _descend(root: str, calls: Mapping[str, Sequence[str]], depth: dict[str, int]) -> None:
    """Give all below `root` their depths, by the longest way that meets none twice, up to _MAX_LAYERS."""
    todo = [(root, 0, frozenset([root]))]
    while todo:
        key, level, above = todo.pop()
        if level <= depth.get(key, -1):
            continue
        depth[key] = level
        if level < _MAX_LAYERS:
            todo += [(each, level + 1, above | {each}) for each in calls.get(key, ()) if each not in above]


def _ordered(layers: list[list[str]], edges: Sequence[TopologyEdge]) -> list[list[str]]:
    """Each layer by where those are to which its nodes are tied, so that fewer edges cross."""
    tied: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        tied[edge.source].append(edge.target)
        tied[edge.target].append(edge.source)
    place = {key: (index + 0.5) / len(layer) for layer in layers for index, key in enumerate(layer)}
    ordered = layers
    for _ in range(_SWEEPS):
        ordered = [sorted(layer, key=lambda key: (_middle(key, tied, place), key)) for layer in ordered]
        place = {key: (index + 0.5) / len(layer) for layer in ordered for index, key in enumerate(layer)}
    return ordered


def _middle(key: str, tied: Mapping[str, Sequence[str]], place: Mapping[str, float]) -> float:
    others = [place[each] for each in tied.get(key, ()) if each in place]
    return sum(others) / len(others) if others else place[key]
