"""Messages that wait for consumers, in memory: those of a queue, or of one group of a topic."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from weft.errors import NotFound
from weft.messaging.message import Message


def size_of(message: Message) -> int:
    """Bytes that count towards limits: the body's, and the headers' names and values."""
    return len(message.body) + sum(len(name) + len(value) for name, value in message.headers.items())


@dataclass(slots=True, eq=False)
class Item:
    """A message where it lies."""

    message: Message
    lane: int
    order: int
    """Its place among all that ever came; a topic's sequence."""
    subtopic: str = ""
    sent_at: float = field(default_factory=time.time)
    deliveries: int = 0
    taken_at: float = 0.0
    """By the loop's clock: when its visibility timeout began, while it is under way."""
    holder: object = None
    """Who took it last."""

    def __lt__(self, other: Item) -> bool:
        return self.order < other.order


class Line:
    """Lanes of messages, those under way, and those that wait for their time.

    Nothing runs in the background: what has become due is found by whoever asks next. Only while consumers
    wait there is a timer for what becomes due first.
    """

    def __init__(self, name: str, lanes: int, *, visibility_timeout: float, one_by_one: bool = False) -> None:
        """`name` is for errors. Lanes come in strict order; if `one_by_one`, by turns, with one message of
        each under way or delayed at a time."""
        self.name = name
        self.visibility_timeout = visibility_timeout
        self._lanes: list[list[Item]] = [[] for _ in range(lanes)]
        self._turns = deque(range(lanes))
        self._one_by_one = one_by_one
        self._held: set[int] = set()
        self._delayed: list[tuple[float, Item]] = []
        self._under_way: OrderedDict[Item, None] = OrderedDict()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._removed = False

    @property
    def ready(self) -> int:
        """Messages in the lanes."""
        self._look()
        return sum(map(len, self._lanes))

    @property
    def delayed(self) -> int:
        """Messages that wait for their time."""
        self._look()
        return len(self._delayed)

    @property
    def in_flight(self) -> int:
        """Messages that consumers have."""
        self._look()
        return len(self._under_way)

    @property
    def waited_for(self) -> bool:
        """Whether a consumer waits."""
        return bool(self._waiting)

    @property
    def oldest(self) -> float | None:
        """When the oldest message that is ready or under way was sent, in seconds since 1970."""
        self._look()
        first = (lane[0] for lane in self._lanes if lane)
        return min((each.sent_at for each in chain(first, self._under_way)), default=None)

    def __len__(self) -> int:
        return sum(map(len, self._lanes)) + len(self._delayed) + len(self._under_way)

    def put(self, item: Item, delay: float = 0.0) -> None:
        """Add a message, to be taken in `delay` seconds at the earliest."""
        if delay > 0:
            heapq.heappush(self._delayed, (_now() + delay, item))
        else:
            heapq.heappush(self._lanes[item.lane], item)
            self._wake()
        self._set_alarm()

    def take(self, limit: int, holder: object) -> list[Item]:
        """Take up to `limit` messages for `holder`. Raises NotFound if all this was removed."""
        if self._removed:
            raise NotFound(f"{self.name} was removed: declare it again, or stop to consume it")
        self._look()
        taken = self._pick(limit)
        now = _now()
        for item in taken:
            item.taken_at = now
            item.holder = holder
            item.deliveries += 1
            self._under_way[item] = None
        if taken and self._waiting:
            if any(self._lanes):
                self._wake()
            self._set_alarm()
        return taken

    def holds(self, item: Item, deliveries: int) -> bool:
        """Whether `item` is still under way for whom it was delivered to as number `deliveries`."""
        self._look()
        return item.deliveries == deliveries and item in self._under_way

    def extend(self, item: Item) -> None:
        """Have the visibility timeout of a message under way begin anew."""
        item.taken_at = _now()
        self._under_way.move_to_end(item)

    def finish(self, item: Item) -> None:
        """Forget a message that was under way."""
        del self._under_way[item]
        self._let_go(item)

    def give_back(self, item: Item, delay: float = 0.0) -> None:
        """Have a message that was under way taken again, at its old place, in `delay` seconds."""
        del self._under_way[item]
        if delay <= 0:
            self._let_go(item)
        self.put(item, delay)

    def give_back_all(self, holder: object) -> None:
        """Have all that `holder` has taken again at once."""
        for item in [each for each in self._under_way if each.holder is holder]:
            self.give_back(item)

    def clear(self) -> list[Item]:
        """Forget what waits, delayed ones included, and return it."""
        waiting = [*chain.from_iterable(self._lanes), *(item for _, item in self._delayed)]
        for lane in self._lanes:
            lane.clear()
        self._held -= {item.lane for _, item in self._delayed}
        self._delayed.clear()
        return waiting

    def forget_before(self, order: int) -> None:
        """Forget what waits in the lanes from before `order`; what is delayed or under way may come again."""
        for lane in self._lanes:
            while lane and lane[0].order < order:
                heapq.heappop(lane)

    def remove(self) -> None:
        """Take nothing any more: whoever waits gets NotFound."""
        self._removed = True
        self.clear()
        self._under_way.clear()
        self.wake_all()

    def wake_all(self) -> None:
        """Have all who wait look again."""
        while self._waiting:
            self._wake()

    def messages(self) -> Iterator[Item]:
        """All that is there, in no order."""
        return chain(chain.from_iterable(self._lanes), (item for _, item in self._delayed), self._under_way)

    def first(self, limit: int) -> list[Item]:
        """Up to `limit` of what is there, lane by lane, oldest first."""
        return heapq.nsmallest(limit, self.messages(), key=lambda item: (item.lane, item.order))

    async def more(self, timeout: float) -> None:
        """Return when there may be something to take, after `timeout` seconds at the latest."""
        loop = asyncio.get_running_loop()
        news: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout, _settle, news)
        self._waiting.append(news)
        self._set_alarm()
        try:
            await news
        except asyncio.CancelledError:
            # The news may have been meant for somebody who is not interested any more.
            if news.done() and not news.cancelled():
                self._wake()
            raise
        finally:
            timer.cancel()
            if news in self._waiting:
                self._waiting.remove(news)

    def _pick(self, limit: int) -> list[Item]:
        if self._one_by_one:
            return self._pick_by_turns(limit)
        picked: list[Item] = []
        for lane in self._lanes:
            while lane and len(picked) < limit:
                picked.append(heapq.heappop(lane))
        return picked

    def _pick_by_turns(self, limit: int) -> list[Item]:
        picked: list[Item] = []
        for number in tuple(self._turns):
            if len(picked) == limit:
                break
            if self._lanes[number] and number not in self._held:
                picked.append(heapq.heappop(self._lanes[number]))
                self._held.add(number)
                self._turns.remove(number)
                self._turns.append(number)
        return picked

    def _look(self) -> None:
        """Put what has become due back into its lane."""
        now = _now()
        while self._delayed and self._delayed[0][0] <= now:
            self._due_again(heapq.heappop(self._delayed)[1])
        while self._under_way:
            # In order: all began with the same timeout, and who extends goes to the end.
            item = next(iter(self._under_way))
            if item.taken_at + self.visibility_timeout > now:
                break
            del self._under_way[item]
            self._due_again(item)

    def _due_again(self, item: Item) -> None:
        self._let_go(item)
        heapq.heappush(self._lanes[item.lane], item)
        self._wake()

    def _let_go(self, item: Item) -> None:
        if self._one_by_one:
            self._held.discard(item.lane)
            self._wake()

    def _set_alarm(self) -> None:
        """See to it that consumers that wait hear of what becomes due first."""
        due = self._due() if self._waiting else None
        if due is None or (self._alarm is not None and self._alarm.when() <= due):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(due, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._look()
        self._set_alarm()

    def _due(self) -> float | None:
        times = [self._delayed[0][0]] if self._delayed else []
        if self._under_way:
            times.append(next(iter(self._under_way)).taken_at + self.visibility_timeout)
        return min(times, default=None)

    def _wake(self) -> None:
        while self._waiting:
            news = self._waiting.popleft()
            if not news.done():
                news.set_result(None)
                return


def _now() -> float:
    return asyncio.get_running_loop().time()


def _settle(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
