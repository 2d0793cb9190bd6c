"""The events of topics as they are published, over lost connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from weft.cli.resuming import resumed
from weft.local.messaging_control import MessagingApi

OVERLAP = 2.0
"""Seconds of what was published last that are asked for again after the connection was lost: those who keep
a topic in several lines don't give them in the order of their times."""

REMEMBERED = 4096
"""Events that are known when they come again."""

_BUFFER = 64


@dataclass(frozen=True, slots=True)
class ReadingStart:
    """Where to begin: with nothing given, at what is published from now on."""

    sequence: int | None = None
    time: float | None = None
    """Seconds since 1970."""

    def document(self) -> dict[str, float]:
        """As the API takes it."""
        given = {"sequence": self.sequence, "time": self.time}
        return {name: value for name, value in given.items() if value is not None}


async def read_along(
    api: MessagingApi, topics: Sequence[str], pattern: str, start: ReadingStart
) -> AsyncGenerator[dict[str, Any], None]:
    """The events of all `topics` whose subtopics are in `pattern` (empty: all), for ever.

    Raises what the control plane answers about any of them.
    """
    found: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_BUFFER)

    async def read(topic: str) -> None:
        async with aclosing(_events(api, topic, pattern, start)) as events:
            async for event in events:
                await found.put(event)

    readers = [asyncio.create_task(read(each), name=f"topic {each}") for each in topics]
    try:
        async with aclosing(_taken(found, readers)) as events:
            async for event in events:
                yield event
    finally:
        for each in readers:
            each.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _taken(
    found: asyncio.Queue[dict[str, Any]], readers: Sequence[asyncio.Task[None]]
) -> AsyncGenerator[dict[str, Any], None]:
    """What is put into the queue, until a reader fails."""
    while True:
        upcoming = asyncio.create_task(found.get())
        try:
            await asyncio.wait({upcoming, *readers}, return_when=asyncio.FIRST_COMPLETED)
            if upcoming.done():
                yield upcoming.result()
                continue
        finally:
            upcoming.cancel()
        for each in readers:
            if each.done():
                each.result()  # they read for ever, so it raises


async def _events(
    api: MessagingApi, topic: str, pattern: str, start: ReadingStart
) -> AsyncGenerator[dict[str, Any], None]:
    """The events of one topic."""
    begun = time.time()
    latest: float | None = None
    seen: deque[tuple[int, str]] = deque(maxlen=REMEMBERED)
    connections = 0

    def query() -> list[tuple[str, str]]:
        nonlocal connections
        connections += 1
        place = start
        if latest is not None:
            place = ReadingStart(time=latest - OVERLAP)
        elif connections > 1 and start == ReadingStart():
            place = ReadingStart(time=begun)
        chosen = [("pattern", pattern)] if pattern else []
        return chosen + [(name, f"{value:.17g}") for name, value in place.document().items()]

    async with aclosing(resumed(lambda: api.read_along(topic, query()))) as events:
        async for event in events:
            document = json.loads(event.data)
            identity = (int(document["sequence"]), str(document["event"].get("id")))
            if identity in seen:
                continue
            seen.append(identity)
            latest = max(latest or 0.0, float(document["publishedAt"]))
            yield document
