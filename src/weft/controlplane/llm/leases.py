"""Leases on their way: from the leader, who grants them, by the store, to every replica and its sidecars."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Protocol

from weft.controlplane.llm.term import Grants
from weft.errors import MeshError
from weft.model.llm_lease import LEASE_LIFETIME, Grant, Lease
from weft.store.bucket import Bucket, Store
from weft.store.followed import Followed

logger = logging.getLogger(__name__)

BUCKET: Final = "llm-leases"
"""One record for each holder, by its key. They lapse when they are good for nothing any more."""

GATHERING: Final = 0.02
"""Seconds for which changes are gathered before sidecars hear of them."""

_AT_ONCE: Final = 256
"""Records that are written at once."""


class LeaseCodec:
    """Leases as JSON."""

    def encode(self, value: Lease) -> bytes:
        """Return the JSON of `value`."""
        fields = {
            "holder": value.holder,
            "number": value.number,
            "granted_at": value.granted_at,
            "grants": [[each.pool, each.requests, each.tokens] for each in value.grants],
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    def decode(self, data: bytes) -> Lease:
        """Return the lease in `data`; raise ValueError if it holds none."""
        try:
            fields = json.loads(data)
            grants = tuple(
                Grant(str(pool), int(requests), int(tokens)) for pool, requests, tokens in fields["grants"]
            )
            return Lease(str(fields["holder"]), int(fields["number"]), float(fields["granted_at"]), grants)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a lease: {error!r}") from error


class Configured(Protocol):
    """What sidecars are configured by."""

    def update_leases(self, leases: Mapping[str, Lease]) -> None:
        """These are the leases now, by holder."""
        ...


class Leases:
    """The leases in the store. Open them with `open`; have `publish` and `follow` run."""

    def __init__(self, bucket: Bucket[Lease], followed: Followed[Lease], leads: Callable[[], bool]) -> None:
        self._bucket = bucket
        self._followed = followed
        self._leads = leads
        self._offered: tuple[Grants, float] | None = None
        self._offer = asyncio.Event()
        self._holders: set[str] = set()
        self._number = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, store: Store, leads: Callable[[], bool]) -> AsyncIterator[Leases]:
        """Within the context, those in `store`; `leads` says whether this replica may grant any now."""
        bucket = await store.bucket(BUCKET, LeaseCodec())
        async with Followed[Lease].follow(bucket, name="leases") as followed:
            yield cls(bucket, followed, leads)

    def grant(self, grants: Grants) -> None:
        """These replace all that was granted before: who is not among them may send nothing any more."""
        self._offered = (grants, time.time())
        self._offer.set()

    async def publish(self) -> None:
        """Write what is granted, for ever."""
        while True:
            await self._offer.wait()
            self._offer.clear()
            if self._offered is None or not self._leads():
                continue
            grants, granted_at = self._offered
            self._number = max(self._number + 1, int(granted_at * 1000))
            # Who had something and gets nothing is told so; others' records lapse by themselves.
            holders = sorted(self._holders | grants.keys())
            leases = [Lease(each, self._number, granted_at, grants.get(each, ())) for each in holders]
            self._holders = set(grants)
            for begin in range(0, len(leases), _AT_ONCE):
                await self._write(leases[begin : begin + _AT_ONCE])

    async def follow(self, configured: Configured) -> None:
        """Have sidecars hear of their leases, for ever."""
        while True:
            seen = self._followed.generation
            configured.update_leases(self._followed.values)
            await self._followed.changed_since(seen)
            await asyncio.sleep(GATHERING)

    async def _write(self, leases: list[Lease]) -> None:
        writes = [self._bucket.put(each.holder, each, ttl=LEASE_LIFETIME) for each in leases]
        for result in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(result, MeshError):
                # Their holders ask about every call, and the next leases come in a second.
                logger.debug("a lease cannot be written: %s", result)
            elif isinstance(result, BaseException):
                raise result
