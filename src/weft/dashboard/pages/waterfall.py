"""How a trace is laid out: a tree of spans, each with its place on one time axis.

Whatever was recorded gets a layout: spans whose parents are missing, that are each other's parents, that end
before they begin or begin before what caused them, since the clocks of two machines differ.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from weft.dashboard.pages.spans import Span

MAX_SHOWN_AT_ONCE = 100
"""Rows on one page of a waterfall."""

_NOTICED_SKEW = 0.001
"""Seconds: what differs by less is not told."""


@dataclass(frozen=True, slots=True)
class Row:
    """One span in its place."""

    key: str
    """Its own in this trace, also where two spans have the same id."""
    span: Span
    depth: int
    left: float
    """Where its bar begins, as a share of the whole: 0 to 1."""
    width: float
    """How long its bar is, likewise."""
    start: float
    """Seconds after the beginning of the trace, clocks adjusted."""
    shift: float
    """Seconds by which it was moved, since it would have begun before what caused it."""
    children: int
    below: int
    """All spans below it."""
    errors_below: int
    is_orphan: bool
    """Its parent is not among the spans."""
    is_circle: bool
    """Its parents lead back to itself."""

    @property
    def was_moved(self) -> bool:
        """Whether its clock differs so much that somebody should know."""
        return abs(self.shift) >= _NOTICED_SKEW


@dataclass(frozen=True, slots=True)
class Waterfall:
    """A trace, laid out."""

    rows: tuple[Row, ...]
    """Parents before children, siblings by time."""
    begin: float
    """Seconds since 1970."""
    length: float
    """Seconds."""

    def visible(self, collapsed: Collection[str]) -> list[Row]:
        """The rows that are not below a collapsed one."""
        found, position = [], 0
        while position < len(self.rows):
            row = self.rows[position]
            found.append(row)
            position += 1 + (row.below if row.key in collapsed else 0)
        return found

    def collapsed_at_first(self, most: int = MAX_SHOWN_AT_ONCE) -> set[str]:
        """Which to collapse so that about `most` rows remain: the deep ones without errors below them."""
        collapsed: set[str] = set()
        if len(self.rows) <= most:
            return collapsed
        for depth in range(max(row.depth for row in self.rows), 0, -1):
            collapsed |= {
                row.key for row in self.rows if row.depth == depth and row.children and not row.errors_below
            }
            if len(self.visible(collapsed)) <= most:
                break
        return collapsed

    def way_to(self, key: str) -> list[str]:
        """The keys of those that must be open for a row to be visible."""
        way: list[Row] = []
        for row in self.rows:
            del way[row.depth :]
            if row.key == key:
                return [each.key for each in way]
            way.append(row)
        return []


@dataclass(slots=True)
class _Node:
    span: Span
    key: str
    children: list[_Node]
    is_orphan: bool = False
    is_circle: bool = False
    is_placed: bool = False
    shift: float = 0.0
    depth: int = 0
    below: int = 0
    errors_below: int = 0

    @property
    def start(self) -> float:
        return self.span.start + self.shift


def laid_out(spans: Sequence[Span]) -> Waterfall:
    """The waterfall of `spans`, whatever their order."""
    nodes = list(_preorder(_roots(_nodes(spans))))
    if not nodes:
        return Waterfall((), 0.0, 0.0)
    _count(nodes)
    begin = min(each.start for each in nodes)
    length = max(each.start + each.span.duration for each in nodes) - begin
    return Waterfall(tuple(_row(each, begin, length) for each in nodes), begin, length)


def _nodes(spans: Sequence[Span]) -> list[_Node]:
    seen: dict[str, int] = defaultdict(int)
    nodes = []
    for span in sorted(spans, key=lambda each: (each.start, each.id)):
        seen[span.id] += 1
        again = f" {seen[span.id]}" if seen[span.id] > 1 else ""
        nodes.append(_Node(span, span.id + again, []))
    return nodes


def _roots(nodes: list[_Node]) -> Iterator[_Node]:
    """Where trees begin, earliest first; last what nothing leads to, since it goes around in a circle."""
    by_id: dict[str, _Node] = {}
    for node in nodes:
        by_id.setdefault(node.span.id, node)
    beginnings = [node for node in nodes if not _is_linked(node, by_id)]
    yield from beginnings
    for node in nodes:
        if not node.is_placed:
            node.is_circle = True
            yield node


def _is_linked(node: _Node, by_id: Mapping[str, _Node]) -> bool:
    """Put a node below its parent, if it has one."""
    parent = by_id.get(node.span.parent)
    if parent is None or parent is node:
        node.is_orphan = bool(node.span.parent) and parent is None
        node.is_circle = parent is node
        return False
    parent.children.append(node)
    return True


def _preorder(roots: Iterator[_Node]) -> Iterator[_Node]:
    """Every node once, parents first, each in its place in time."""
    # One at a time: which ones go around in a circle is known when all others have been placed.
    for root in roots:
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if node.is_placed:
                continue
            node.is_placed = True
            yield node
            node.children = [each for each in node.children if not each.is_placed]
            for child in node.children:
                child.depth = node.depth + 1
                child.shift = _shift(node, child.span)
            node.children.sort(key=lambda each: (each.start, each.key))
            waiting.extend(reversed(node.children))


def _shift(parent: _Node, child: Span) -> float:
    """By how much to move a child so that it does not begin before its parent.

    Programs beside each other have one clock. If another's is behind, the child is put into the middle of its
    parent, for it took as long to get there as back, as far as anybody knows.
    """
    if child.instance == parent.span.instance:
        return parent.shift
    early = parent.start - child.start
    if early <= 0:
        return 0.0
    return early + max(0.0, parent.span.duration - child.duration) / 2


def _count(nodes: list[_Node]) -> None:
    """Add up from the end, where the leaves are."""
    for node in reversed(nodes):
        node.below = sum(1 + each.below for each in node.children)
        node.errors_below = sum(each.span.failed + each.errors_below for each in node.children)


def _row(node: _Node, begin: float, length: float) -> Row:
    start = node.start - begin
    left = start / length if length > 0 else 0.0
    width = node.span.duration / length if length > 0 else 1.0
    return Row(
        key=node.key,
        span=node.span,
        depth=node.depth,
        left=min(1.0, left),
        width=min(1.0 - min(1.0, left), width),
        start=start,
        shift=node.shift,
        children=len(node.children),
        below=node.below,
        errors_below=node.errors_below,
        is_orphan=node.is_orphan,
        is_circle=node.is_circle,
    )


def ticks(length: float, about: int = 5) -> list[float]:
    """Round times on an axis of so many seconds, from 0."""
    if length <= 0:
        return [0.0]
    rough = length / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * 0.999)
    return [number * step for number in range(int(length / step + 1e-9) + 1)]
