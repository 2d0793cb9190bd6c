"""Lists in pages: large ones, since many clients read the first alone.

A cursor names the entry that came before it. So it holds on every replica, and if the list has changed
meanwhile, entries of other servers are neither missed nor told twice.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from weft.errors import InvalidRequest
from weft.model.mcp_catalogue import PublishedPrompt, PublishedResource, PublishedTemplate, PublishedTool
from weft.model.offer import JsonObject

MAX_PAGE: Final = 1000
"""Entries."""

MAX_PAGE_BYTES: Final = 4 * 1024 * 1024

MAX_CURSOR: Final = 8 * 1024
"""Characters."""

_EntryT = TypeVar("_EntryT", PublishedTool, PublishedPrompt, PublishedResource, PublishedTemplate)


@dataclass(frozen=True, slots=True)
class Page(Generic[_EntryT]):
    """A part of a list."""

    entries: Sequence[_EntryT]
    next: str | None = None
    """The cursor of the one that follows; None: there is none."""


def page_of(
    entries: Sequence[_EntryT], cursor: str | None, write: Callable[[JsonObject], bytes]
) -> Page[_EntryT]:
    """The page after `cursor`, or the first. Raises InvalidRequest for what was never a cursor.

    `write` makes JSON of definitions.
    """
    start = 0 if cursor is None else _after(entries, *_read(cursor))
    end, room = start, MAX_PAGE_BYTES
    for each in entries[start : start + MAX_PAGE]:
        room -= len(write(each.definition)) + 1
        if room < 0 and end > start:
            break
        end += 1
    following = _cursor(entries[end - 1]) if end < len(entries) else None
    return Page(entries[start:end], following)


def _after(entries: Sequence[_EntryT], server: str, key: str) -> int:
    """Where the entries after one begin; if that is gone, those of the servers after its own."""
    for index, each in enumerate(entries):
        if (each.server.type, _key(each)) == (server, key):
            return index + 1
    return next((index for index, each in enumerate(entries) if each.server.type > server), len(entries))


def _key(entry: PublishedTool | PublishedPrompt | PublishedResource | PublishedTemplate) -> str:
    match entry:
        case PublishedResource():
            return entry.uri
        case PublishedTemplate():
            return entry.template
    return entry.original


def _cursor(entry: PublishedTool | PublishedPrompt | PublishedResource | PublishedTemplate) -> str:
    return base64.urlsafe_b64encode(json.dumps([entry.server.type, _key(entry)]).encode()).decode()


def _read(cursor: str) -> tuple[str, str]:
    try:
        place = json.loads(base64.b64decode(cursor[:MAX_CURSOR], altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        place = None
    match place:
        case [str(server), str(key)]:
            return server, key
    raise InvalidRequest("that is no cursor of this list")
