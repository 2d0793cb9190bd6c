"""RabbitMQ's management plugin: what AMQP neither tells nor changes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from weft.errors import Denied, Unavailable

_LONGEST = 4 * 1024 * 1024
_OK = range(200, 300)
_NOT_FOUND = 404
_DENIED = frozenset({401, 403})


class Management:
    """The plugin's API. Everything raises Unavailable, and Denied if the user is no policymaker."""

    def __init__(self, url: str, *, username: str, password: str, vhost: str, timeout: float) -> None:
        """`url` is without user and password; `timeout`: seconds for an answer."""
        self._url = url.rstrip("/")
        credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._headers = {"authorization": f"Basic {credentials}"}
        self._vhost = quote(vhost, safe="")
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def put_policy(self, name: str, pattern: str, definition: Mapping[str, Any]) -> None:
        """Have what the queues whose names match `pattern` are limited to."""
        document = {"pattern": pattern, "definition": definition, "apply-to": "queues", "priority": 100}
        await self._ask("PUT", f"policies/{self._vhost}/{quote(name, safe='')}", document)

    async def remove_policy(self, name: str) -> None:
        """Have no such policy."""
        await self._ask("DELETE", f"policies/{self._vhost}/{quote(name, safe='')}")

    async def under_way(self, queue: str) -> int:
        """How many of its messages consumers have, as of some seconds ago."""
        return _count(await self._queue(queue), "messages_unacknowledged")

    async def aclose(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    async def _queue(self, name: str) -> Mapping[str, Any]:
        found = await self._ask("GET", f"queues/{self._vhost}/{quote(name, safe='')}")
        return found if isinstance(found, dict) else {}

    async def _ask(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout)
        try:
            async with self._session.request(
                method, f"{self._url}/api/{path}", json=document, allow_redirects=False
            ) as answer:
                if answer.status in _DENIED:
                    raise Denied(
                        f"RabbitMQ's management plugin at {self._url} does not permit it: "
                        "give the user the tag policymaker"
                    )
                if answer.status == _NOT_FOUND:
                    return None
                body = await answer.content.read(_LONGEST)
                if answer.status not in _OK:
                    raise Unavailable(
                        f"RabbitMQ's management plugin at {self._url} answered {answer.status}: "
                        f"{body[:200].decode(errors='replace')}"
                    )
                return json.loads(body) if body else None
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            raise Unavailable(
                f"RabbitMQ's management plugin at {self._url} cannot be reached: is it on?"
            ) from error


def _count(document: Mapping[str, Any], name: str) -> int:
    value = document.get(name, 0)
    return value if isinstance(value, int) else 0
