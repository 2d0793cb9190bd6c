"""Subscriptions that are made anew after their connection was lost: whoever listens says when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from weft.store.nats_client import unsubscribe
from weft.store.nats_connection import NatsConnection


class NatsSubscription:
    """What one listener subscribes to."""

    def __init__(
        self,
        connection: NatsConnection,
        what: str,
        subjects: tuple[str, ...],
        receive: Callable[[Msg], Awaitable[None]],
    ) -> None:
        """`what` says in errors what was to be done; `receive` gets each message."""
        self._connection = connection
        self._what = what
        self._subjects = subjects
        self._receive = receive
        self._made: Iterable[Subscription] = ()
        self.lost = False
        """Whether the connection was lost since, or what came last could not be made."""

    async def begin(self) -> None:
        """Subscribe, anew if need be. Raises Unavailable or Denied."""
        former, self._made, self.lost = self._made, (), False
        try:
            await unsubscribe(former)
            self._made = await self._connection.subscribe(self._what, self._subjects, self._receive)
        except BaseException:
            # A subscription that was not made is not there, whatever was noted before it was tried.
            self.lost = True
            raise

    async def end(self) -> None:
        """Hear no more."""
        former, self._made = self._made, ()
        await unsubscribe(former)
