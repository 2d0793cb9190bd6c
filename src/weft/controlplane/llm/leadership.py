"""One replica of the control plane schedules: which one, and for how much longer.

The leader is who holds a key that lapses. It counts its own time from before it wrote the key, by a clock
that goes on while the process is stopped, so it gives up before another can begin: a replica that was frozen
wakes up as one that does not lead.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from weft.aio.generation import Generation
from weft.aio.tasks import TaskOwner
from weft.controlplane.llm.records import Leader, LeaderCodec
from weft.errors import Conflict, MeshError, Unavailable
from weft.store.bucket import Bucket, Entry, Store
from weft.store.followed import Followed

logger = logging.getLogger(__name__)

BUCKET = "llm"
KEY = "leader"

TTL = 3.0
"""Seconds after which a leader that was not heard of is none any more, unless it is told otherwise."""

RENEWAL = 1.0
"""Seconds between two renewals."""

MARGIN = 0.5
"""Seconds by which a leader gives up earlier than the store could forget it."""

RETRY = 0.2
"""Seconds after which a renewal that failed is tried again, and a key that somebody else has is looked at."""

_OWN_TERMS = 16
"""Terms of which a replica knows that they were its own."""


class Leadership:
    """Whether this replica leads, and who does. Open it with `open`; have `run` run."""

    def __init__(
        self,
        bucket: Bucket[Leader],
        followed: Followed[Leader],
        *,
        replica: str,
        address: str,
        ttl: float = TTL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = bucket
        self._followed = followed
        self._replica = replica
        self._address = address
        self._ttl = ttl
        self._clock = clock
        self._term = ""
        self._terms: deque[str] = deque(maxlen=_OWN_TERMS)
        """Its own, the latest last."""
        self._revision = 0
        self._until = float("-inf")
        self._last: Leader | None = None
        self._resigned = False
        self._generation = Generation()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, store: Store, *, replica: str, address: str, ttl: float = TTL
    ) -> AsyncIterator[Leadership]:
        """Within the context, the leadership over what is in `store`; a leader gives it up when it leaves.

        `address` is the `host:port` at which sidecars reach this replica; `ttl`: seconds after which it leads
        no more if it could not say that it still does. Raises Unavailable.
        """
        bucket = await store.bucket(BUCKET, LeaderCodec())
        following = Followed[Leader].follow(bucket, name="the leader", value_of=_with_revision)
        async with following as followed:
            leadership = cls(bucket, followed, replica=replica, address=address, ttl=ttl)
            async with TaskOwner("leadership") as tasks:
                tasks.start(leadership._notice(), name="follow the leader", endless=True)
                try:
                    yield leadership
                finally:
                    await leadership.resign()

    @property
    def term(self) -> str:
        """The term that this replica leads in; empty while it does not lead."""
        return self._term if self._clock() < self._until else ""

    @property
    def leader(self) -> Leader | None:
        """Who leads, or led last; None: nobody ever did."""
        return self._followed.values.get(KEY) or self._last

    @property
    def vacant(self) -> bool:
        """Whether nobody leads, as far as is known."""
        return KEY not in self._followed.values

    @property
    def heard(self) -> int:
        """Grows with every sign of life of a leader, and whenever it is another one."""
        return self._followed.generation

    @property
    def generation(self) -> int:
        """Grows whenever somebody begins or ceases to lead."""
        return self._generation.number

    async def heard_since(self, heard: int) -> int:
        """Wait until `heard` is no longer what it was; return what it is."""
        return await self._followed.changed_since(heard)

    def mine(self, leader: Leader) -> bool:
        """Whether `leader` is this replica, in whichever term."""
        return leader.term in self._terms

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        return await self._generation.later_than(generation)

    async def run(self) -> None:
        """Lead whenever nobody else does, for ever."""
        while True:
            if not self._term:
                await self._stand()
            else:
                await self._renew()

    def lapse(self) -> None:
        """Lead no more, at once; somebody else does, or this replica does not know what was decided."""
        if self._term:
            logger.info("this replica (%s) does not schedule calls to models any more", self._replica)
            self._term, self._until = "", float("-inf")
            self._generation.advance()

    async def resign(self) -> None:
        """Give the key up, so that another need not wait for it to lapse."""
        revision, led = self._revision, bool(self._term)
        self._resigned = True
        self.lapse()
        if led:
            with suppress(MeshError):
                await self._bucket.delete(KEY, revision=revision)

    async def _stand(self) -> None:
        """Become the leader if there is none, or wait a little."""
        if not self.vacant or self._resigned:
            await self._news(self._ttl)
            return
        term = secrets.token_hex(8)
        self._terms.append(term)
        began = self._clock()
        try:
            async with asyncio.timeout(self._ttl - MARGIN):
                record = Leader(term, self._replica, self._address)
                revision = await self._bucket.create(KEY, record, ttl=self._ttl)
        except (MeshError, TimeoutError) as error:
            logger.debug("this replica does not lead: %s", error)
            await self._news(RETRY)
            return
        self._lead(term, revision, began)

    async def _renew(self) -> None:
        """Wait until it is time, and prolong the term; or end it."""
        await asyncio.sleep(max(0.0, min(RENEWAL, self._until - self._clock())))
        term = self.term
        if not term:
            self.lapse()
            return
        began = self._clock()
        record = Leader(term, self._replica, self._address)
        try:
            async with asyncio.timeout(self._until - began):
                revision = await self._bucket.update(KEY, record, revision=self._revision, ttl=self._ttl)
        except Conflict:
            await self._look(term)
        except (Unavailable, TimeoutError) as error:
            logger.warning("the leadership of calls to models cannot be renewed: %s", error)
            await asyncio.sleep(RETRY)
        else:
            if self._term == term:
                self._revision, self._until = revision, began + self._ttl - MARGIN

    async def _look(self, term: str) -> None:
        """See whether a renewal of which no answer came was done after all."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(max(0.0, self._until - self._clock())):
                entry = await self._bucket.get(KEY)
            if entry is not None and entry.value.term == term:
                self._revision = entry.revision
                return
            self.lapse()

    def _lead(self, term: str, revision: int, began: float) -> None:
        self._term, self._revision, self._until = term, revision, began + self._ttl - MARGIN
        logger.info("this replica (%s) schedules calls to models", self._replica)
        self._generation.advance()

    async def _news(self, limit: float) -> None:
        """Wait for a change of the key, `limit` seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._followed.changed_since(self._followed.generation)

    async def _notice(self) -> None:
        seen = self._followed.generation
        while True:
            now = self._followed.values.get(KEY)
            if now is not None and (self._last is None or now.term != self._last.term):
                self._last = now
                self._generation.advance()
            seen = await self._followed.changed_since(seen)


def _with_revision(entry: Entry[Leader]) -> Leader:
    return replace(entry.value, revision=entry.revision)
