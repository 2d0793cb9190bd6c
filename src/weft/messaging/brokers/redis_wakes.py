"""How consumers that wait hear that there is something for them.

A pull that finds nothing leaves its consumer's place among those that wait. Whoever brings something takes
out the place of one of them and publishes the consumer's number to the channel of its process, which alone
listens there. A word that gets lost costs a few seconds: nobody waits for longer without looking.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Any

from redis.asyncio import Connection

from weft.aio.backoff import backoff
from weft.messaging.brokers.redis_address import RedisAddress
from weft.messaging.brokers.redis_connection import FAILURES, connected

logger = logging.getLogger(__name__)

_SILENCE = 5.0
"""Seconds after which the server is asked whether it is still there; it is given up after as many again."""

_LONGEST_PAUSE = 2.0


class RedisWakes:
    """The channel of one process."""

    def __init__(self, address: RedisAddress, prefix: str, *, timeout: float) -> None:
        """`timeout`: seconds for connecting."""
        self._address = address
        self._timeout = timeout
        self._channel = f"{prefix}:wake:{secrets.token_hex(8)}"
        self._listeners: dict[int, Callable[[], None]] = {}
        self._last = 0

    def listen(self, heard: Callable[[], None]) -> tuple[int, str]:
        """Have `heard` called when there is something; a number to `forget` it by, and its address."""
        self._last += 1
        self._listeners[self._last] = heard
        return self._last, f"{self._channel}#{self._last}"

    def forget(self, number: int) -> None:
        """Listen no more."""
        self._listeners.pop(number, None)

    async def run(self) -> None:
        """Listen, and connect again whenever the connection is lost."""
        pauses = backoff(longest=_LONGEST_PAUSE)
        while True:
            try:
                connection = await connected(self._address, self._timeout)
                try:
                    await connection.send_command("SUBSCRIBE", self._channel)
                    await connection.read_response()
                    pauses = backoff(longest=_LONGEST_PAUSE)
                    # What was said while nobody listened is lost.
                    for heard in tuple(self._listeners.values()):
                        heard()
                    await self._follow(connection)
                finally:
                    await connection.disconnect(nowait=True)
            except FAILURES as error:
                logger.debug("not listening at Redis at %s: %s", self._address, error)
            await asyncio.sleep(next(pauses))

    async def _follow(self, connection: Connection) -> None:
        asked = False
        while True:
            said: Any = await connection.read_response(timeout=_SILENCE)
            if said is not None:
                asked = False
                self._pass_on(said)
            elif asked:
                raise TimeoutError(f"no word for {2 * _SILENCE:g} s")
            else:
                await connection.send_command("PING", check_health=False)
                asked = True

    def _pass_on(self, said: Any) -> None:
        if isinstance(said, list) and said[0] == b"message" and said[2].isdigit():
            heard = self._listeners.get(int(said[2]))
            if heard is not None:
                heard()
