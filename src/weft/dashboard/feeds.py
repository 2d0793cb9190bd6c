"""Feeds: each path of the API that anybody watches is asked for once for all of them.

What an endpoint answers depends on the scope of who asks, by which the API's rules go, and not on the person:
so viewers of one scope share a feed, which is asked for with the token of one of them. A token that is not
good any more is found out by whoever asks with it, and by `_Watchman`, and ends its viewers' pages.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from weft.aio.cancellation import end
from weft.aio.tasks import TaskOwner
from weft.dashboard.api import Api
from weft.dashboard.followed import Followed
from weft.dashboard.viewer import Viewer
from weft.errors import MeshError, Unauthenticated
from weft.model.operator import Scope

logger = logging.getLogger(__name__)

SESSION_INTERVAL = 2.0
"""Seconds between looks at whether a viewer's token is still good."""

MAX_FEEDS = 500
"""Different paths that are followed at a time; each is a request every few seconds."""

_UNSEEN = 60.0  # seconds between looks whether somebody sees it again, should nobody have said so
_GATHERED = 0.1  # seconds for which changes are gathered

Shape = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class News:
    """What a feed has to tell."""

    data: Any = None
    error: MeshError | None = None
    """Why there is no data, or none that is new."""
    at: float = 0.0
    """When that was, in seconds since 1970."""


@dataclass(eq=False, slots=True)
class Subscription:
    """One page's interest in one path."""

    viewer: Viewer
    deliver: Callable[[News], None]
    """Called with news, while `active`."""
    active: Callable[[], bool]
    """Whether anybody sees it now."""
    shape: Shape | None = None
    seen: int = 0


@dataclass(eq=False)
class _Feed:
    path: str
    every: float
    follows: bool
    """Whether it is a stream of changes rather than an answer that is asked for over and over."""
    subscriptions: list[Subscription] = field(default_factory=list)
    news: News | None = None
    number: int = 0
    shaped: dict[Shape, Any] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Feeds:
    """All feeds of a dashboard. They cost nothing while nobody watches."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._feeds: dict[tuple[str, Scope], _Feed] = {}
        self._viewers: dict[object, tuple[Viewer, Callable[[], None]]] = {}
        self._tasks = TaskOwner("dashboard")
        self._watchman: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """End all of them."""
        await self._tasks.close()

    def attend(self, who: object, viewer: Viewer, end: Callable[[], None]) -> None:
        """From now on `end` is called once when `viewer`'s token is not good any more, until `leave(who)`."""
        self._viewers[who] = (viewer, end)
        if self._watchman is None or self._watchman.done():
            self._watchman = self._tasks.start(self._watch_sessions(), name="sessions")

    def leave(self, who: object) -> None:
        """Whoever attended is gone."""
        self._viewers.pop(who, None)

    def subscribe(self, path: str, every: float, subscription: Subscription) -> Callable[[], None]:
        """Deliver what is at `path`, asked for `every` so many seconds; what this returns ends it.

        A path with `watch=true` is followed instead: delivered are `Followed.news`, at most so often.
        """
        key = (path, subscription.viewer.scope)
        feed = self._feeds.get(key)
        if feed is None:
            if len(self._feeds) >= MAX_FEEDS:
                subscription.deliver(News(error=MeshError("too much is watched at once: close some tabs")))
                return lambda: None
            feed = self._feeds[key] = _Feed(path, every, "watch=true" in path)
            feed.task = self._tasks.start(self._run(key, feed), name=f"feed of {path}")
        feed.every = min(feed.every, every)
        feed.subscriptions.append(subscription)
        self._tell(feed, [subscription])
        feed.wake.set()

        def stop() -> None:
            if subscription in feed.subscriptions:
                feed.subscriptions.remove(subscription)
                feed.wake.set()

        return stop

    def refresh(self, viewer: Viewer, path: str) -> None:
        """Ask for `path` now: something was changed."""
        feed = self._feeds.get((path, viewer.scope))
        if feed is not None:
            feed.wake.set()

    def wake(self, subscriptions: Iterable[Subscription]) -> None:
        """Whoever has these is to be seen again: what there is is delivered anew, whole."""
        wanted = set(map(id, subscriptions))
        for feed in self._feeds.values():
            back = [each for each in feed.subscriptions if id(each) in wanted]
            if back:
                for each in back:
                    each.seen = 0
                self._tell(feed, back)
                feed.wake.set()

    async def _run(self, key: tuple[str, Scope], feed: _Feed) -> None:
        try:
            while feed.subscriptions:
                feed.wake.clear()
                began = time.monotonic()
                if not _seen(feed):
                    feed.news = None  # it need not be kept
                    feed.shaped.clear()
                    await _woken(feed.wake, _UNSEEN)
                    continue
                if feed.follows:
                    await self._follow(feed)
                else:
                    self._have(feed, await self._asked(feed, self._ask))
                await _woken(feed.wake, max(0.1, feed.every - (time.monotonic() - began)))
        finally:
            self._feeds.pop(key, None)

    def _have(self, feed: _Feed, news: News) -> None:
        feed.news = news
        feed.number += 1
        feed.shaped.clear()
        self._tell(feed, feed.subscriptions)

    async def _follow(self, feed: _Feed) -> None:
        """Deliver changes until nobody sees them, or the API ends it."""
        news = await self._asked(feed, self._follow_as)
        if news.error is not None:
            self._have(feed, news)

    async def _follow_as(self, feed: _Feed, viewer: Viewer) -> News:
        followed = Followed()
        async with aclosing(self._api.events(viewer, feed.path)) as events:
            upcoming = asyncio.ensure_future(anext(events, None))
            try:
                while _seen(feed):
                    await asyncio.wait([upcoming], timeout=feed.every)
                    while upcoming.done():
                        event = upcoming.result()
                        if event is None:
                            return News()
                        followed.take(*event, time.time())
                        upcoming = asyncio.ensure_future(anext(events, None))
                        await asyncio.sleep(0)
                    if followed.changed(time.time()):
                        self._have(feed, News(followed.news(), None, time.time()))
                    await asyncio.sleep(_GATHERED)
            finally:
                await end([upcoming])
        return News()

    async def _ask(self, feed: _Feed, viewer: Viewer) -> News:
        return News(await self._api.ask(viewer, "GET", feed.path), None, time.time())

    async def _asked(self, feed: _Feed, ask: Callable[[_Feed, Viewer], Awaitable[News]]) -> News:
        """What `ask` comes to with the token of one of the viewers."""
        refused: set[str] = set()
        error: MeshError = Unauthenticated("you are signed out")
        for each in [*feed.subscriptions]:
            if each.viewer.key in refused:
                continue
            try:
                return await ask(feed, each.viewer)
            except Unauthenticated as problem:
                refused.add(each.viewer.key)
                error = problem
                self._end(each.viewer)
            except MeshError as problem:
                return News(feed.news.data if feed.news else None, problem, time.time())
        return News(None, error, time.time())

    def _tell(self, feed: _Feed, subscriptions: Iterable[Subscription]) -> None:
        if feed.news is None:
            return
        for each in [*subscriptions]:
            if each.seen == feed.number or not each.active():
                continue
            each.seen = feed.number
            try:
                each.deliver(self._shaped(feed, each.shape))
            except Exception:  # a page's fault is that page's: others go on
                logger.exception("a page could not show what is at %s", feed.path)

    def _shaped(self, feed: _Feed, shape: Shape | None) -> News:
        assert feed.news is not None  # noqa: S101 -- the caller's
        if shape is None or feed.news.data is None:
            return feed.news
        if shape not in feed.shaped:
            feed.shaped[shape] = shape(feed.news.data)
        return News(feed.shaped[shape], feed.news.error, feed.news.at)

    async def _watch_sessions(self) -> None:
        while self._viewers:
            await asyncio.sleep(SESSION_INTERVAL)
            held = {viewer.key: viewer for viewer, _ in self._viewers.values()}
            for viewer in held.values():
                try:
                    await self._api.viewer(viewer.token, viewer.address)
                except Unauthenticated:
                    self._end(viewer)
                except MeshError:
                    continue

    def _end(self, viewer: Viewer) -> None:
        ended = [who for who, (each, _) in self._viewers.items() if each.key == viewer.key]
        for who in ended:
            _, end = self._viewers.pop(who)
            end()


def _seen(feed: _Feed) -> bool:
    return any(each.active() for each in feed.subscriptions)


async def _woken(event: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        pass
