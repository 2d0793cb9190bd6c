"""Under which keys a queue or a topic lies in Redis.

All keys of one of them have the same hash tag, so that they are in one slot of a cluster.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.messaging.broker import Priority

_LANES = tuple(int(each) for each in Priority)


class QueueKeys:
    """Of one queue.

    `lane` is a stream for each priority. `lease` holds what is under way, by when it is to be acknowledged;
    `later` what was handed back, by when it is to be delivered again. `delayed` tells when the messages in
    `held` are due, which no lane has had yet. `waiting` are consumers that wait, `clock` is until when one of
    them waits for what is due next.
    """

    def __init__(self, prefix: str, queue: str) -> None:
        """`prefix` is what all keys of a mesh begin with."""
        base = f"{prefix}:{{q:{queue}}}:"
        self.settings = f"{base}settings"
        self.lanes = tuple(f"{base}lane:{each}" for each in _LANES)
        self.leases = tuple(f"{base}lease:{each}" for each in _LANES)
        self.laters = tuple(f"{base}later:{each}" for each in _LANES)
        self.delayed = f"{base}delayed"
        self.held = f"{base}held"
        self.dead = f"{base}dead"
        self.dead_ids = f"{base}dead-ids"
        self.waiting = f"{base}waiting"
        self.clock = f"{base}clock"

    @property
    def lines(self) -> Sequence[str]:
        """Settings, lanes, and what is known of their messages."""
        return (self.settings, *self.lanes, *self.leases, *self.laters)

    @property
    def everything(self) -> Sequence[str]:
        """All of them, `waiting` first."""
        rest = (self.delayed, self.held, self.dead, self.dead_ids, self.clock)
        return (self.waiting, *self.lines, *rest)


class TopicKeys:
    """Of one topic, whose partitions are a stream each; without partitions it has one stream.

    `groups` holds what was declared of them, `expiring` when those that may expire do.
    """

    def __init__(self, prefix: str, topic: str) -> None:
        """`prefix` is what all keys of a mesh begin with."""
        self._base = f"{prefix}:{{t:{topic}}}:"
        self.settings = f"{self._base}settings"
        self.groups = f"{self._base}groups"
        self.expiring = f"{self._base}expiring"
        self.waiting = f"{self._base}waiting"

    def stream(self, partition: int) -> str:
        """Of a partition."""
        return f"{self._base}part:{partition}"

    def streams(self, partitions: int) -> Sequence[str]:
        """Of all partitions, of which the topic has so many."""
        return [self.stream(each) for each in range(max(partitions, 1))]

    def everything(self, partitions: int) -> Sequence[str]:
        """All but those of groups."""
        return (self.settings, self.groups, self.expiring, self.waiting, *self.streams(partitions))

    def lease(self, group: str) -> str:
        """What is under way in a group, by when it is to be acknowledged."""
        return f"{self._base}lease:{group}"

    def later(self, group: str) -> str:
        """What was handed back in a group, by when it is to be delivered again."""
        return f"{self._base}later:{group}"

    def clock(self, group: str) -> str:
        """Until when a consumer of the group waits for what is due next."""
        return f"{self._base}clock:{group}"
