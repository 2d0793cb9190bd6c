"""The topology as SVG: elements of the page, each a link, of which only what changed is sent."""

from __future__ import annotations

import math

from nicegui import ui

from weft.dashboard.page import link_to
from weft.dashboard.pages.topology import (
    HEIGHT,
    KINDS,
    WIDTH,
    Layout,
    Topology,
    TopologyEdge,
    TopologyNode,
    layout,
)
from weft.dashboard.wording import milliseconds, rate, share

MAX_TEXT = 22
"""Characters of a name that fit into a node."""

MAX_LABELLED = 30
"""Edges up to which each is labelled; beyond that they would lie over each other."""

_MARGIN = 12


class _Shape:
    """An SVG element whose attributes are sent when they change."""

    def __init__(self, tag: str, classes: str = "", text: str = "", **attributes: object) -> None:
        self.element = ui.element(tag)
        self._state: tuple[str, str, dict[str, object]] = ("", "", {})
        self.show(classes, text, **attributes)

    def show(self, classes: str, text: str = "", **attributes: object) -> None:
        """Have these classes, this text, these attributes beside those there are."""
        whole = {**self._state[2], **{name.replace("_", "-"): value for name, value in attributes.items()}}
        state = (classes, text, whole)
        if state == self._state:
            return
        self._state = state
        self.element._classes[:] = classes.split()
        self.element._text = text or None
        self.element._props.update(whole)
        self.element.update()


class _DrawnNode:
    def __init__(self, node: TopologyNode, at: tuple[float, float]) -> None:
        x, y = at
        self._link = _Shape("a", href=_page_of(node), data_node=node.key)
        with self._link.element:
            _Shape("rect", "box", x=x, y=y, width=WIDTH, height=HEIGHT, rx=7)
            _Shape("rect", "bar", x=x, y=y + 8, width=4, height=HEIGHT - 16, rx=2)
            _Shape("text", "name", _cut(node.name), x=x + 14, y=y + 21)
            self._detail = _Shape("text", "detail", x=x + 14, y=y + 38)
            self._title = _Shape("title")
        self.show(node)

    def show(self, node: TopologyNode) -> None:
        """How it stands now."""
        kind = KINDS.get(node.kind, node.kind)
        told = f"{kind}: {node.detail}" if node.detail else kind
        label = f"{node.name}, {told}, {rate(node.calls)} calls a second"
        self._link.show(f"weft-node weft-{node.tone}", aria_label=label)
        self._detail.show("detail", _cut(told, 27))
        self._title.show("", label)


class _DrawnEdge:
    def __init__(self, edge: TopologyEdge, places: Layout, *, labelled: bool) -> None:
        path, middle = _path(places.places[edge.source], places.places[edge.target])
        self._path = _Shape("path", d=path, data_edge=edge.key, marker_end="url(#weft-arrow)")
        with self._path.element:
            self._title = _Shape("title")
        self._label = (
            _Shape("text", "weft-edge-label", x=middle[0], y=middle[1], text_anchor="middle")
            if labelled and not edge.events
            else None
        )
        self.show(edge)

    def show(self, edge: TopologyEdge) -> None:
        """How it goes now."""
        width = f"{1.2 + 1.4 * math.log10(1 + edge.rate):.1f}"
        dashes = "5 5" if edge.events else "none"
        self._path.show(f"weft-edge weft-{edge.tone}", stroke_width=width, stroke_dasharray=dashes)
        told = "" if edge.rate <= 0 else f"{rate(edge.rate)}/s · {milliseconds(edge.p99)}"
        if self._label is not None:
            self._label.show("weft-edge-label", told)
        self._title.show("", "subscribes" if edge.events else _told(edge))


class TopologyDrawing:
    """The drawing. It is laid out anew only when there are other nodes or edges."""

    def __init__(self) -> None:
        self._box = ui.element("div").classes("weft-panel weft-map")
        self._box.props('role=group aria-label="Topology; the table below tells the same"')
        self._shape: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._nodes: dict[str, _DrawnNode] = {}
        self._edges: dict[str, _DrawnEdge] = {}

    def show(self, shown: Topology) -> None:
        """Have these nodes and edges."""
        shape = (tuple(each.key for each in shown.nodes), tuple(each.key for each in shown.edges))
        if shape != self._shape:
            self._draw(shown)
            self._shape = shape
            return
        for node in shown.nodes:
            self._nodes[node.key].show(node)
        for edge in shown.edges:
            self._edges[edge.key].show(edge)

    def _draw(self, shown: Topology) -> None:
        places = layout(shown)
        self._box.clear()
        width, height = places.width + 2 * _MARGIN, places.height + 2 * _MARGIN
        labelled = len(shown.edges) <= MAX_LABELLED
        with self._box:
            box = f"{-_MARGIN} {-_MARGIN} {width} {height}"
            picture = _Shape("svg", viewBox=box, width=width, height=height)
        with picture.element:
            with (
                _Shape("defs").element,
                _Shape(
                    "marker",
                    id="weft-arrow",
                    viewBox="0 0 8 8",
                    refX=7,
                    refY=4,
                    markerWidth=7,
                    markerHeight=7,
                    orient="auto-start-reverse",
                    markerUnits="userSpaceOnUse",
                ).element,
            ):
                _Shape("path", d="M0 0 8 4 0 8z", fill="context-stroke")
            self._edges = {each.key: _DrawnEdge(each, places, labelled=labelled) for each in shown.edges}
            self._nodes = {each.key: _DrawnNode(each, places.places[each.key]) for each in shown.nodes}


def _path(source: tuple[float, float], target: tuple[float, float]) -> tuple[str, tuple[float, float]]:
    """A curve between two nodes, and where its label goes."""
    (x1, y1), (x2, y2) = source, target
    y1, y2 = y1 + HEIGHT / 2, y2 + HEIGHT / 2
    if source == target:
        right = x1 + WIDTH
        return (
            f"M{right} {y1 - 10}c46 -22 46 42 0 22",
            (right + 36, y1 + 4),
        )
    if x2 > x1:
        begin, end = x1 + WIDTH, x2 - 2
        bend = max(40.0, (end - begin) / 2)
        return f"M{begin} {y1}C{begin + bend} {y1} {end - bend} {y2} {end} {y2}", (
            (begin + end) / 2,
            (y1 + y2) / 2 - 5,
        )
    if x1 == x2:  # in one column: along its right side
        begin = x1 + WIDTH
        return f"M{begin} {y1}C{begin + 50} {y1} {begin + 50} {y2} {begin + 2} {y2}", (
            begin + 40,
            (y1 + y2) / 2,
        )
    begin, end = x1, x2 + WIDTH + 2
    return f"M{begin} {y1}C{begin - 60} {y1 + 34} {end + 60} {y2 + 34} {end} {y2}", (
        (begin + end) / 2,
        (y1 + y2) / 2 + 30,
    )


def _page_of(node: TopologyNode) -> str:
    if node.name.endswith(" more"):
        return link_to("agents" if node.kind == "agent" else "traffic")
    match node.kind:
        case "agent":
            return link_to("agents", type=node.name)
        case "queue" | "topic":
            return link_to(f"{node.kind}s", node.name)
        case "model":
            return link_to("llm")
        case "caller" | "gateway":
            return link_to("traffic")
    return link_to("traffic", destination=node.name)


def _told(edge: TopologyEdge) -> str:
    source, target = (each.partition("/")[2] for each in (edge.source, edge.target))
    good = share(edge.rate - edge.errors - edge.refused, edge.rate)
    return (
        f"{source} to {target}: {rate(edge.rate)} calls a second, {good} succeed, "
        f"p50 {milliseconds(edge.p50)}, p99 {milliseconds(edge.p99)}"
    )


def _cut(text: str, most: int = MAX_TEXT) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
