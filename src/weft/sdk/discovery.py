"""Who is in the mesh: asked of the control plane, once or for as long as somebody wants to hear more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from urllib.parse import urlencode

from pydantic import ValidationError

from weft.errors import Interrupted, TimedOut, Unavailable
from weft.model.agent import Instance, Query
from weft.sdk.calls import events_of, fetch, pauses
from weft.sdk.destination import CONTROL_HOST
from weft.sdk.directory import Change, ChangeKind, InstanceRecord, Roster, parameters_of, read_page
from weft.sdk.problem import read_event_error
from weft.sdk.sse import Event
from weft.sdk.transport import Call, Transport
from weft.sdk.wire import AGENTS_PATH, EVENT_STREAM, JSON

logger = logging.getLogger("weft.mesh")

DIRECTORY_TIMEOUT = 10.0
"""Seconds the control plane has to answer."""

PAGE_SIZE = 100
"""Instances per page of `discovered`."""

IDLE_TIMEOUT = 60.0
"""Seconds for which a watch may be silent."""


async def discovered(way: Transport, query: Query, limit: int | None) -> list[Instance]:
    """The instances that match, sorted by type and id; `limit` None: all. Raises Unavailable."""
    found: list[Instance] = []
    after = ""
    while limit is None or len(found) < limit:
        size = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit - len(found))
        page = read_page(await fetch(way, _listing(query, size, after), DIRECTORY_TIMEOUT))
        found += [record.instance() for record in page.items]
        if not page.next:
            break
        after = page.next
    return found


async def watched(way: Callable[[], Transport], query: Query) -> AsyncGenerator[Change, None]:
    """Each instance that matches, as added, then every change, without end, whatever connection breaks."""
    call = _watching(query)
    roster = Roster()
    delays = pauses()
    while True:
        roster.reconnecting()
        try:
            async with aclosing(events_of(way(), call, IDLE_TIMEOUT)) as events:
                async for event in events:
                    delays = pauses()
                    for change in _changes(roster, event):
                        yield change
        except (Unavailable, Interrupted, TimedOut) as error:
            logger.warning("the watch of agents broke off (%s); it begins anew", error)
        await asyncio.sleep(next(delays))


def _listing(query: Query, size: int, after: str) -> Call:
    parameters = [*parameters_of(query), ("limit", str(size))]
    if after:
        parameters.append(("after", after))
    return Call("GET", CONTROL_HOST, f"{AGENTS_PATH}?{urlencode(parameters)}", {"accept": JSON})


def _watching(query: Query) -> Call:
    parameters = [*parameters_of(query), ("watch", "true")]
    return Call("GET", CONTROL_HOST, f"{AGENTS_PATH}?{urlencode(parameters)}", {"accept": EVENT_STREAM})


def _changes(roster: Roster, event: Event) -> list[Change]:
    if event.name == "synced":
        return roster.synced()
    if event.name == "error":
        raise read_event_error(CONTROL_HOST, event.data)
    try:
        instance = InstanceRecord.model_validate_json(event.data).instance()
    except ValidationError as error:
        raise Unavailable(f"the control plane's watch of agents makes no sense: {error}") from error
    return roster.remove(instance.key) if event.name == ChangeKind.REMOVED else roster.put(instance)
