"""A topic in Redis, as one process knows it: how many partitions it has, and so which keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from weft.errors import NotFound, Unavailable
from weft.messaging.brokers.redis_connection import Argument, Orphaned, RedisConnection, RedisRefusal
from weft.messaging.brokers.redis_keys import TopicKeys
from weft.messaging.brokers.redis_script import Script

Command = tuple[Sequence[str], Sequence[Argument]]

_OTHER_PARTITIONS = "WEFTPARTITIONS"
_NO_GROUP = "WEFTGROUP"


class RedisTopic:
    """A topic. It may have been removed, and made again with other partitions."""

    def __init__(self, connection: RedisConnection, prefix: str, name: str) -> None:
        """`prefix` is what all keys of a mesh begin with."""
        self.connection = connection
        self.name = name
        self.keys = TopicKeys(prefix, name)
        self._partitions: int | None = None

    async def partitions(self, *, fresh: bool = False) -> int:
        """How many it has; 0 if its messages have no order. Raises NotFound."""
        if self._partitions is None or fresh:
            found = await self.connection.call(
                f"look for topic {self.name!r}", "HGET", self.keys.settings, "partitions"
            )
            if found is None:
                self._partitions = None
                raise self.missing()
            self._partitions = int(found)
        return self._partitions

    async def found_partitions(self) -> int | None:
        """How many it has; None if there is no such topic."""
        try:
            return await self.partitions(fresh=True)
        except NotFound:
            return None

    async def run(
        self,
        what: str,
        script: Script,
        command: Callable[[int], Command],
        *,
        group: str = "",
        orphaned: Orphaned | None = None,
    ) -> Any:
        """What a script says, whose keys and arguments depend on the number of partitions.

        Raises NotFound for the topic or the group.
        """
        for fresh in (False, True):
            keys, arguments = command(await self.partitions(fresh=fresh))
            try:
                return await self.connection.run(what, script, keys, arguments, orphaned=orphaned)
            except RedisRefusal as refusal:
                if refusal.code == _NO_GROUP:
                    raise NotFound(
                        f"topic {self.name!r} has no group {group!r}: it was not declared, or expired"
                    ) from None
                if refusal.code != _OTHER_PARTITIONS:
                    self._partitions = None
                    raise self.missing() from None
        raise Unavailable(f"cannot {what}: the topic is being removed and made again; try again")

    def missing(self) -> NotFound:
        """The error for a topic that is not there."""
        return NotFound(f"there is no topic {self.name!r}: declare it")
