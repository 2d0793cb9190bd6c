"""Who submits tasks to gateways that are killed, until each is taken, and remembers what was promised."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import aiohttp
from tests.e2e.chaos_plan import QUEUE, Kind, kind_of

KEYED = 5
"""All but each of so many tasks are submitted with an idempotency key."""

_PAUSE = 0.2
"""Seconds until what was not taken is submitted again."""


class Customer:
    """Submits one task for each number."""

    def __init__(self, urls: Sequence[str], headers: Mapping[str, str], numbers: Iterable[int]) -> None:
        """`urls` of gateways, any of which will do; `headers` say who submits."""
        self._urls = urls
        self._headers = headers
        self._numbers = iter(numbers)
        self.promised: dict[int, str] = {}
        """The tasks whose submission was confirmed: ids by number."""
        self.refusals: Counter[str] = Counter()
        """How often a submission was refused, or not answered, and why."""
        self.longest = 0.0
        """Seconds that the slowest answer took."""

    async def submit_all(self, at_once: int) -> None:
        """Submit everything, so many at a time."""
        timeout = aiohttp.ClientTimeout(total=30.0)
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=self._headers) as session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(at_once):
                group.create_task(self._submit_some(session, number))

    async def _submit_some(self, session: aiohttp.ClientSession, turn: int) -> None:
        for number in self._numbers:
            # Without a key, what was not confirmed may be there all the same: that is another task.
            keys = {} if number % KEYED == 0 else {"idempotency-key": f"n-{number}"}
            while number not in self.promised:
                turn += 1
                await self._submit(session, self._urls[turn % len(self._urls)], number, keys)

    async def _submit(
        self, session: aiohttp.ClientSession, url: str, number: int, keys: Mapping[str, str]
    ) -> None:
        body = {
            "queue": QUEUE,
            "payload": number,
            "priority": "high" if kind_of(number) is Kind.POISON else "normal",
        }
        began = time.monotonic()
        try:
            async with session.post(f"{url}/v1/tasks", json=body, headers=keys) as answer:
                told = await answer.json(content_type=None)
                if answer.status == 202:
                    self.promised[number] = told["id"]
                    return
                assert answer.status == 503, told
                assert answer.headers["retry-after"] == "1", told
                self.refusals["503"] += 1
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.refusals[type(error).__name__] += 1
        finally:
            self.longest = max(self.longest, time.monotonic() - began)
        await asyncio.sleep(_PAUSE)
