"""A client of the part of the control plane's API that is about queues, tasks, topics and gateways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from weft.local.control import ControlApi, Parameters, document_in, items_in, segment
from weft.sdk.sse import Event

BULK_TIMEOUT = 120.0
"""Seconds that something has which is done to many messages."""

BULK = 1000
"""So many messages are looked at, or redriven, at once at most."""

Events = AbstractAsyncContextManager[AsyncIterator[Event]]
"""A stream of events, as `ControlApi.stream` gives it."""


class MessagingApi:
    """Queues, tasks, topics and gateways, by way of a control plane.

    Every method raises what those of ControlApi raise, and NotFound for what is not declared.
    """

    def __init__(self, api: ControlApi) -> None:
        self._api = api

    async def queues(self) -> list[dict[str, Any]]:
        """How all queues stood a moment ago."""
        return items_in(await self._api.ask("GET", "/v1/queue-status"), "items")

    async def queue(self, name: str) -> dict[str, Any]:
        """How a queue stands."""
        return document_in(await self._api.ask("GET", _queue(name)))

    async def peek(self, queue: str, *, dead: bool, limit: int) -> list[dict[str, Any]]:
        """The oldest messages, or dead letters, at most BULK."""
        query = [("dead", str(dead).lower()), ("limit", str(limit))]
        answer = await self._api.ask("GET", f"{_queue(queue)}/messages", query=query, timeout=BULK_TIMEOUT)
        return items_in(answer, "items")

    async def redrive(self, queue: str, ids: Sequence[str] | None) -> int:
        """Have these tasks, or with None all that failed (at most BULK), tried anew; how many."""
        body = {"ids": None if ids is None else list(ids)}
        return _count(await self._api.ask("POST", f"{_queue(queue)}/redrive", body, timeout=BULK_TIMEOUT))

    async def purge(self, queue: str, *, dead: bool) -> int:
        """Throw away what waits, or the dead letters; how many."""
        query = [("dead", str(dead).lower()), ("confirm", queue)]
        return _count(
            await self._api.ask("POST", f"{_queue(queue)}/purge", query=query, timeout=BULK_TIMEOUT)
        )

    async def submit(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Put a task (`queue`, `payload`, `priority`, `delay`, ...) into a queue; how it stands."""
        return document_in(await self._api.ask("POST", "/v1/tasks", task))

    async def task(self, task_id: str) -> dict[str, Any]:
        """How a task stands."""
        return document_in(await self._api.ask("GET", _task(task_id)))

    async def tasks(self, queue: str, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        """The tasks of a queue that changed last, at most `limit`."""
        found: list[dict[str, Any]] = []
        before = ""
        while True:
            query = [("queue", queue), ("limit", str(min(BULK, limit - len(found))))]
            query += [("state", state)] if state else []
            query += [("before", before)] if before else []
            page = document_in(await self._api.ask("GET", "/v1/tasks", query=query))
            found += items_in(page, "items")
            before = page.get("next") or ""
            if not before or len(found) >= limit:
                return found[:limit]

    async def cancel(self, task_id: str) -> dict[str, Any]:
        """Cancel a task; how it stands."""
        return document_in(await self._api.ask("POST", f"{_task(task_id)}/cancel"))

    def follow(self, task_id: str, after: str = "") -> Events:
        """What happens to a task until its end; `after` is the id of the last event that is known."""
        return self._api.stream(f"{_task(task_id)}/events", [("after", after)] if after else [])

    async def topics(self) -> list[dict[str, Any]]:
        """How all topics stand."""
        return items_in(await self._api.ask("GET", "/v1/topic-status"), "items")

    async def topic(self, name: str) -> dict[str, Any]:
        """How a topic and its groups stand."""
        return document_in(await self._api.ask("GET", _topic(name)))

    async def publish(self, event: Mapping[str, Any]) -> int:
        """Publish an event (`topic`, `data`, `type`, `key`, `subject`); its sequence, 0 if not known."""
        answer = document_in(await self._api.ask("POST", "/v1/topic-status/publish", event))
        return int(answer.get("sequence") or 0)

    def read_along(self, topic: str, query: Parameters) -> Events:
        """The events of a topic from now on, or from the `sequence` or `time` in `query`."""
        return self._api.stream(f"{_topic(topic)}/events", query)

    async def replay(self, topic: str, group: str, start: Mapping[str, float]) -> None:
        """Have a group get again everything from a `sequence` or `time` on."""
        await self._api.ask("POST", f"{_topic(topic)}/groups/{segment(group)}/replay", start)

    async def keys(self, gateway: str) -> list[dict[str, Any]]:
        """What is known of a gateway's API keys."""
        return items_in(await self._api.ask("GET", _keys(gateway)), "items")

    async def create_key(self, gateway: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """A new API key (`key`, told nowhere else)."""
        return document_in(await self._api.ask("POST", _keys(gateway), wanted))

    async def delete_key(self, gateway: str, name: str) -> None:
        """Make an API key worthless."""
        await self._api.ask("DELETE", f"{_keys(gateway)}/{segment(name)}")


def _queue(name: str) -> str:
    return f"/v1/queue-status/{segment(name)}"


def _task(task_id: str) -> str:
    return f"/v1/tasks/{segment(task_id)}"


def _topic(name: str) -> str:
    return f"/v1/topic-status/{segment(name)}"


def _keys(gateway: str) -> str:
    return f"/v1/gateways/{segment(gateway)}/keys"


def _count(answer: Any) -> int:
    return int(document_in(answer).get("count") or 0)
