"""The authority's state in the store, which all replicas of the control plane share.

The first replica makes it, the others take it up. Each follows it, and changes it by compare-and-set. A store
that has lost it, or gone back to an earlier one, is given the latest that is known: nobody would trust an
authority made anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from weft.aio.backoff import backoff
from weft.aio.generation import Generation
from weft.controlplane.ca.state import AuthorityState, open_state, seal_state
from weft.controlplane.sealing import Sealer
from weft.errors import Conflict, InvalidRequest, MeshError, Unavailable
from weft.store.bucket import Bucket, Change, Entry, Put, Snapshot, Store

logger = logging.getLogger(__name__)

BUCKET = "authority"
KEY = "state"

_ATTEMPTS = 20
"""How often a change is tried when other replicas write at the same time."""


class _Bytes:
    """Bytes as they are: what cannot be opened must not look absent, or it would be overwritten."""

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


class SharedState:
    """The state as this replica knows it. Open it with `open`, and let `follow` run."""

    def __init__(self, bucket: Bucket[bytes], sealer: Sealer, state: AuthorityState) -> None:
        self._bucket = bucket
        self._sealer = sealer
        self._state = state
        self._revision = 0
        self._sealed_anew = True
        self._generation = Generation()
        self._writing = asyncio.Lock()

    @classmethod
    async def open(
        cls, store: Store, sealer: Sealer, trust_domain: str, first: Callable[[], AuthorityState]
    ) -> SharedState:
        """The state in `store`, or, if there is none, what `first` makes.

        Raises SealBroken if it is sealed with a key that `sealer` has not, InvalidRequest if it is of another
        trust domain than `trust_domain`, Unavailable.
        """
        bucket = await store.bucket(BUCKET, _Bytes())
        entry = await bucket.get(KEY)
        if entry is None:
            logger.info("%s: making a certificate authority, as the store has none", trust_domain)
            with suppress(Conflict):
                await bucket.create(KEY, seal_state(first(), sealer))
            entry = await bucket.get(KEY)
        if entry is None:
            raise Unavailable("the store does not keep the certificate authority's state; start again")
        state = open_state(entry.value, sealer)
        if state.trust_domain != trust_domain:
            raise InvalidRequest(
                f"the store holds the authority of the trust domain {state.trust_domain!r}, not of "
                f"{trust_domain!r}: configure that one, or use another store"
            )
        shared = cls(bucket, sealer, state)
        shared._take(entry)
        return shared

    @property
    def current(self) -> AuthorityState:
        """The latest state that is known."""
        return self._state

    @property
    def generation(self) -> int:
        """Grows with every change of the state."""
        return self._generation.number

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        return await self._generation.later_than(generation)

    async def change(self, change: Callable[[AuthorityState], AuthorityState]) -> None:
        """Write what `change` makes of the state; it is asked again if another replica wrote meanwhile.

        Nothing is written if it returns what it was given. Raises what `change` raises, and Unavailable.
        """
        async with self._writing:
            for pause in islice(backoff(first=0.02, longest=0.5), _ATTEMPTS):
                state = self._state
                changed = change(state)
                if changed is state and self._sealed_anew:
                    return
                with suppress(Conflict):
                    await self._write(replace(changed, version=state.version + 1), self._revision)
                    return
                await asyncio.sleep(pause)
                with suppress(Conflict):
                    await self._reconcile()
        raise Unavailable("other replicas keep changing the certificate authority's state; try again")

    async def follow(self) -> None:
        """Take up what other replicas write, without end."""
        async with self._bucket.watch(KEY) as changes:
            async for change in changes:
                try:
                    await self._follow_to(change)
                except MeshError as problem:
                    logger.error(  # noqa: TRY400 -- a trace adds nothing
                        "%s: going on with the certificate authority as it was: %s",
                        self._state.trust_domain,
                        problem,
                    )

    async def _follow_to(self, change: Change[bytes]) -> None:
        match change:
            case Put(entry) | Snapshot((entry,)) if self._take(entry):
                return
        # Gone, or older than what is known: our own write was faster than the watch, or the store lost it.
        async with self._writing:
            with suppress(Conflict):
                await self._reconcile()

    async def _reconcile(self) -> None:
        """Take the state from the store, or give it the one that is known, if that is later."""
        entry = await self._bucket.get(KEY)
        if entry is not None and self._take(entry):
            return
        logger.error(
            "%s: the store has lost the certificate authority's latest state; putting it back",
            self._state.trust_domain,
        )
        await self._write(self._state, entry.revision if entry else None)

    async def _write(self, state: AuthorityState, revision: int | None) -> None:
        """Write `state` over that `revision`, or where there is none. Raises Conflict, Unavailable."""
        sealed = seal_state(state, self._sealer)
        if revision is None:
            written = await self._bucket.create(KEY, sealed)
        else:
            written = await self._bucket.update(KEY, sealed, revision=revision)
        self._take(Entry(KEY, sealed, written))

    def _take(self, entry: Entry[bytes]) -> bool:
        """Go on with the state in `entry`, or return False if that is superseded.

        Raises SealBroken, and InvalidRequest if it is of another trust domain.
        """
        state = open_state(entry.value, self._sealer)
        if state.trust_domain != self._state.trust_domain:
            raise InvalidRequest(f"the store now holds the authority of {state.trust_domain!r}")
        if not state.supersedes(self._state):
            return False
        news = not _same(state, self._state)
        self._state, self._revision = state, entry.revision
        self._sealed_anew = self._sealer.is_current(entry.value)
        if news:
            self._generation.advance()
        return True


def _same(one: AuthorityState, other: AuthorityState) -> bool:
    return (one.bundles, one.root.der, one.issuing.der) == (other.bundles, other.root.der, other.issuing.der)
