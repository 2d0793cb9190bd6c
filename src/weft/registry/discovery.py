"""Finding instances that meet conditions, page by page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nsmallest

from weft.errors import InvalidRequest
from weft.model.agent import Instance, Query

DEFAULT_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the instances that match."""

    instances: tuple[Instance, ...]
    next: str | None
    """What to give as `after` to get the rest; None if this is all."""


def discover(
    instances: Iterable[Instance], query: Query, *, limit: int = DEFAULT_LIMIT, after: str = ""
) -> Page:
    """The first `limit` of `instances` that meet `query` and whose keys come after `after`, sorted by key.

    Raises InvalidRequest if `limit` is less than 1.
    """
    if limit < 1:
        raise InvalidRequest(f"a page of {limit} instances makes no sense; ask for 1 or more")
    matching = (each for each in instances if each.key > after and query.matches(each))
    found = nsmallest(limit + 1, matching, key=lambda each: each.key)
    page = tuple(found[:limit])
    return Page(page, next=page[-1].key if len(found) > limit else None)
