"""Calls that wait, and whose turn it is: by class, then by fairness between tenants, then by arrival.

A *lane* holds the calls that may go to the same providers: those with longer prompts may have fewer to choose
from, and others need not wait for them. What has waited long rises into the class above its own.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from weft.controlplane.llm.call import Call
from weft.controlplane.llm.fairness import Counters
from weft.model.service_class import ServiceClass

RANKS: Final = len(ServiceClass)

_SLACK: Final = 64
"""Entries beyond twice those of use that a heap may have before it is made anew."""


@dataclass(slots=True, eq=False)
class Waiter:
    """A call that waits."""

    call: Call
    number: int
    """Grows with every call: who came first."""
    since: float
    rank: int
    """Of the class in which it waits now."""
    lane: int
    """The providers it may go to, a bit for each."""
    tokens: int = 0
    """To reserve for prompt and answer together."""
    output_tokens: int = 0
    """Of these, for the answer."""
    expected_output: float = 0.0
    """Tokens that the answer is likely to have."""
    cost: float = 0.0
    """To charge to its tenant's counter."""
    risen: bool = False


class _Line:
    """The calls of one tenant in one lane."""

    __slots__ = ("key", "own", "risen")

    def __init__(self, key: float) -> None:
        self.key = key
        """Counter with which it stands in the lane's heap."""
        self.own: OrderedDict[str, Waiter] = OrderedDict()
        self.risen: OrderedDict[str, Waiter] = OrderedDict()

    def head(self) -> Waiter:
        if not self.risen:
            return next(iter(self.own.values()))
        first = next(iter(self.risen.values()))
        if self.own:
            other = next(iter(self.own.values()))
            return first if first.number < other.number else other
        return first

    def last(self) -> Waiter:
        return next(reversed(self.own.values() if self.own else self.risen.values()))

    def add(self, waiter: Waiter) -> None:
        (self.risen if waiter.risen else self.own)[waiter.call.id] = waiter

    def remove(self, waiter: Waiter) -> None:
        del (self.risen if waiter.risen else self.own)[waiter.call.id]

    def __bool__(self) -> bool:
        return bool(self.own) or bool(self.risen)


class _Lane:
    """Tenants by their counters: a heap whose entries are put right when they come to its top."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.lines: dict[str, _Line] = {}
        self._heap: list[tuple[float, str]] = []

    def add(self, waiter: Waiter) -> None:
        tenant = waiter.call.tenant
        line = self.lines.get(tenant)
        if line is None:
            line = self.lines[tenant] = _Line(self._counters.of(tenant))
            self._push(line.key, tenant)
        line.add(waiter)

    def remove(self, waiter: Waiter) -> None:
        tenant = waiter.call.tenant
        line = self.lines[tenant]
        line.remove(waiter)
        if not line:
            del self.lines[tenant]

    def lowered(self, tenant: str) -> None:
        """The tenant's counter is less than it was."""
        line = self.lines.get(tenant)
        if line is not None:
            line.key = self._counters.of(tenant)
            self._push(line.key, tenant)

    def top(self) -> tuple[float, str] | None:
        """The least counter of those that wait here, and whose it is."""
        heap = self._heap
        while heap:
            key, tenant = heap[0]
            line = self.lines.get(tenant)
            if line is None or key != line.key:
                heapq.heappop(heap)
                continue
            counter = self._counters.of(tenant)
            if counter == key:
                return heap[0]
            line.key = counter
            heapq.heapreplace(heap, (counter, tenant))
        return None

    def _push(self, key: float, tenant: str) -> None:
        heapq.heappush(self._heap, (key, tenant))
        if len(self._heap) > 2 * len(self.lines) + _SLACK:
            self._heap = [(line.key, name) for name, line in self.lines.items()]
            heapq.heapify(self._heap)


class _Class:
    """What waits in one class."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.lanes: dict[int, _Lane] = {}
        self.tenants: dict[str, int] = {}
        """How many calls each has waiting."""

    def add(self, waiter: Waiter) -> None:
        tenant = waiter.call.tenant
        count = self.tenants.get(tenant, 0)
        if not count:
            self.counters.begins(tenant, self._least())
        self.tenants[tenant] = count + 1
        self.line_up(waiter)

    def line_up(self, waiter: Waiter) -> None:
        lane = self.lanes.get(waiter.lane)
        if lane is None:
            lane = self.lanes[waiter.lane] = _Lane(self.counters)
        lane.add(waiter)

    def remove(self, waiter: Waiter) -> None:
        tenant = waiter.call.tenant
        self.lanes[waiter.lane].remove(waiter)
        count = self.tenants[tenant] - 1
        if count:
            self.tenants[tenant] = count
        else:
            del self.tenants[tenant]
            self.counters.leaves(tenant)

    def charge(self, tenant: str, cost: float) -> None:
        self.counters.add(tenant, cost)
        if cost < 0:
            for lane in self.lanes.values():
                lane.lowered(tenant)

    def first(self, closed: int) -> Waiter | None:
        if not self.tenants:
            return None
        best: tuple[float, int, Waiter] | None = None
        for mask, lane in self.lanes.items():
            top = lane.top() if mask & ~closed else None
            if top is not None:
                head = lane.lines[top[1]].head()
                if best is None or (top[0], head.number) < best[:2]:
                    best = (top[0], head.number, head)
        return None if best is None else best[2]

    def _least(self) -> float | None:
        if not self.tenants:
            return None
        tops = [top for lane in self.lanes.values() if (top := lane.top()) is not None]
        return min(tops)[0] if tops else None


class WaitingCalls:
    """All calls of a pool that wait."""

    def __init__(self) -> None:
        self._classes = tuple(_Class() for _ in range(RANKS))
        self._all: OrderedDict[str, Waiter] = OrderedDict()
        """In the order of their arrival."""
        self._to_rise: OrderedDict[str, Waiter] = OrderedDict()
        self._deadlines: list[tuple[float, int, str]] = []

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._all

    def __iter__(self) -> Iterator[Waiter]:
        """In the order of their arrival."""
        return iter(self._all.values())

    def add(self, waiter: Waiter) -> None:
        """A call begins to wait."""
        call = waiter.call
        self._all[call.id] = waiter
        if waiter.rank > 0:
            self._to_rise[call.id] = waiter
        if call.deadline is not None:
            self._note_deadline(call.deadline, waiter)
        self._classes[waiter.rank].add(waiter)

    def remove(self, call_id: str) -> Waiter | None:
        """A call waits no more. None: it did not."""
        waiter = self._all.pop(call_id, None)
        if waiter is not None:
            self._to_rise.pop(call_id, None)
            self._classes[waiter.rank].remove(waiter)
        return waiter

    def admit(self, waiter: Waiter) -> bool:
        """It is this call's turn: it waits no more, and its tenant is charged.

        Returns whether another tenant waits in its class: then it is at that one's expense.
        """
        contested = len(self._classes[waiter.rank].tenants) > 1
        # Charged first: the counter with which a tenant leaves is the one with which others begin.
        self.charge(waiter.rank, waiter.call.tenant, waiter.cost)
        self.remove(waiter.call.id)
        return contested

    def charge(self, rank: int, tenant: str, cost: float) -> None:
        """Charge a tenant in a class, or give back."""
        self._classes[rank].charge(tenant, cost)

    def first(self, rank: int, closed: int) -> Waiter | None:
        """Whose turn it is in a class, among those that may go elsewhere than to the `closed` providers."""
        return self._classes[rank].first(closed)

    def rise(self, now: float, after: float) -> None:
        """Those that have waited `after` seconds or longer go up by a class."""
        while self._to_rise:
            waiter = next(iter(self._to_rise.values()))
            if now < waiter.since + after:
                return
            self._to_rise.popitem(last=False)
            self._classes[waiter.rank].remove(waiter)
            waiter.rank -= 1
            waiter.risen = True
            self._classes[waiter.rank].add(waiter)

    def oldest(self) -> Waiter | None:
        """Who waits longest."""
        return next(iter(self._all.values()), None)

    def next_to_rise(self) -> Waiter | None:
        """Who goes up by a class next."""
        return next(iter(self._to_rise.values()), None)

    def next_deadline(self) -> tuple[float, str] | None:
        """The first deadline of a call that waits, and which call."""
        heap = self._deadlines
        while heap:
            deadline, number, call_id = heap[0]
            waiter = self._all.get(call_id)
            if waiter is not None and waiter.number == number:
                return deadline, call_id
            heapq.heappop(heap)
        return None

    def too_many(self) -> Waiter:
        """Who is to go if one must: in the least class the youngest call of who has most waiting there."""
        least = next(each for each in reversed(self._classes) if each.tenants)
        newest = next(reversed(self._all.values()))
        tenant = newest.call.tenant
        share = len(self._all) / len(least.tenants)
        if least.tenants.get(tenant, 0) <= share:
            tenant = max(least.tenants, key=least.tenants.__getitem__)
        lines = [lane.lines[tenant] for lane in least.lanes.values() if tenant in lane.lines]
        return max((line.last() for line in lines), key=lambda each: each.number)

    def ahead(self, tenant: str, rank: int) -> int:
        """About how many calls would go before a new one."""
        same = self._classes[rank].tenants
        before = sum(sum(each.tenants.values()) for each in self._classes[:rank])
        turns = (same.get(tenant, 0) + 1) * (len(same) + (tenant not in same)) - 1
        return before + min(sum(same.values()), turns)

    def assign(self, lane: Callable[[Waiter], int]) -> None:
        """The providers have changed: every call gets the lane that `lane` says."""
        for each in self._classes:
            each.lanes.clear()
        for waiter in self._all.values():
            waiter.lane = lane(waiter)
            self._classes[waiter.rank].line_up(waiter)

    def _note_deadline(self, deadline: float, waiter: Waiter) -> None:
        heapq.heappush(self._deadlines, (deadline, waiter.number, waiter.call.id))
        if len(self._deadlines) > 2 * len(self._all) + _SLACK:
            self._deadlines = [
                (each.call.deadline, each.number, each.call.id)
                for each in self._all.values()
                if each.call.deadline is not None
            ]
            heapq.heapify(self._deadlines)
