"""The certificate authority of one mesh, shared by all replicas of the control plane."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from weft.aio.tasks import TaskOwner
from weft.controlplane.ca import rotation
from weft.controlplane.ca.certificates import SigningKey, make_svid
from weft.controlplane.ca.lifetimes import Lifetimes
from weft.controlplane.ca.request import requested_key
from weft.controlplane.ca.rotation import Level
from weft.controlplane.ca.shared_state import SharedState
from weft.controlplane.sealing import Sealer
from weft.errors import Denied, InvalidRequest, MeshError
from weft.identity.bundle import TrustBundles
from weft.identity.svid import Svid
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId, check_trust_domain
from weft.store.bucket import Store

logger = logging.getLogger(__name__)

_DEFAULT_LIFETIMES = Lifetimes()

_LONGEST_PAUSE = 30.0
_SHORTEST_PAUSE = 0.1
"""Seconds between two looks at what is due."""


@dataclass(frozen=True, slots=True)
class AuthorityStatus:
    """What can be told of an authority. Times are in seconds since 1970."""

    trust_domain: str
    root: str
    """SHA-256 of the root certificate (DER), in hexadecimal digits."""
    root_expires_at: float
    issuing: str
    """SHA-256 of the issuing intermediate's certificate."""
    issuing_expires_at: float
    next_root: str | None
    """SHA-256 of a root that is trusted already and will take over; None if there is none."""
    next_root_takes_over_at: float | None
    previous_roots: int
    """Roots that sign no more, and are still trusted."""
    federated: tuple[str, ...]
    """The trust domains it is federated with, sorted."""
    bundle_revision: int


class Authority:
    """Signs SVIDs, and says what to trust. Open it with `open`."""

    def __init__(self, shared: SharedState, lifetimes: Lifetimes, clock: Callable[[], float]) -> None:
        self._shared = shared
        self._lifetimes = lifetimes
        self._clock = clock

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        store: Store,
        sealer: Sealer,
        *,
        trust_domain: str = DEFAULT_TRUST_DOMAIN,
        lifetimes: Lifetimes = _DEFAULT_LIFETIMES,
        clock: Callable[[], float] = time.time,
    ) -> AsyncIterator[Authority]:
        """Within the context, the authority of the mesh in `store`: made if there is none, and kept turning.

        Raises SealBroken if its state is sealed with a key that `sealer` has not, InvalidRequest if it is of
        another trust domain, Unavailable. `clock` gives the seconds since 1970.
        """
        check_trust_domain(trust_domain)
        shared = await SharedState.open(
            store, sealer, trust_domain, lambda: rotation.first_state(trust_domain, clock(), lifetimes)
        )
        authority = cls(shared, lifetimes, clock)
        await authority.tick()
        async with TaskOwner("certificate authority") as tasks:
            tasks.start(shared.follow(), name="follow the store", endless=True)
            tasks.start(authority._turn(), name="rotate", endless=True)
            yield authority

    @property
    def trust_domain(self) -> str:
        """The trust domain whose authority it is."""
        return self._shared.current.trust_domain

    @property
    def lifetimes(self) -> Lifetimes:
        """How long what it signs is valid."""
        return self._lifetimes

    @property
    def bundles(self) -> TrustBundles:
        """What members of the trust domain trust now."""
        return self._shared.current.bundles

    @property
    def generation(self) -> int:
        """Grows with every change of the authority: of what is trusted, or of who signs."""
        return self._shared.generation

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        return await self._shared.changed_since(generation)

    @property
    def status(self) -> AuthorityStatus:
        """What can be told of it."""
        state = self._shared.current
        coming = state.next_root
        return AuthorityStatus(
            trust_domain=state.trust_domain,
            root=_fingerprint(state.root),
            root_expires_at=state.root.not_after,
            issuing=_fingerprint(state.issuing),
            issuing_expires_at=state.issuing.not_after,
            next_root=_fingerprint(coming.root) if coming else None,
            next_root_takes_over_at=coming.prepared_at + self._lifetimes.propagation if coming else None,
            previous_roots=len(state.previous),
            federated=tuple(sorted(state.federated)),
            bundle_revision=state.revision,
        )

    def sign(
        self,
        csr_pem: bytes,
        spiffe_id: SpiffeId,
        *,
        dns_names: Collection[str] = (),
        ip_addresses: Collection[str] = (),
        lifetime: float | None = None,
    ) -> Svid:
        """An SVID that says who has the key of the request: `spiffe_id`, which the caller has proved.

        It lives for `lifetime` seconds, at most the authority's own default for SVIDs. Raises InvalidRequest
        if the request or a name is malformed, Denied if the request names another SPIFFE ID or `spiffe_id`
        is not this authority's to give, Unavailable if the authority's own certificate is not valid now.
        """
        if spiffe_id.trust_domain != self.trust_domain or not spiffe_id.path:
            raise Denied(f"{spiffe_id} is not for the authority of {self.trust_domain!r} to give")
        if lifetime is not None and lifetime < 1:
            raise InvalidRequest(f"an SVID lives for at least 1 s, not {lifetime:g} s")
        issuing = self._shared.current.issuing
        leaf = make_svid(
            issuing,
            requested_key(csr_pem, spiffe_id),
            spiffe_id,
            now=self._clock(),
            lifetime=min(lifetime or math.inf, self._lifetimes.svid),
            dns_names=dns_names,
            ip_addresses=ip_addresses,
        )
        return Svid(spiffe_id, (leaf, issuing.certificate))

    async def rotate(self, level: Level) -> None:
        """Begin to replace the root or the intermediate.

        Raises Conflict if a new root is on its way already, Unavailable.
        """
        await self._shared.change(lambda state: rotation.begin(state, level, self._clock(), self._lifetimes))
        logger.info("%s: the %s is being replaced, as asked for", self.trust_domain, level)

    async def federate(self, trust_domain: str, pem: bytes) -> None:
        """Trust the roots in `pem` to vouch for `trust_domain`, and for nothing else.

        They replace those before. Raises InvalidRequest if they are no roots, or of this trust domain;
        Unavailable.
        """
        await self._shared.change(lambda state: rotation.federate(state, trust_domain, pem))

    async def unfederate(self, trust_domain: str) -> None:
        """Trust nobody to vouch for `trust_domain` any more. Raises NotFound, Unavailable."""
        await self._shared.change(lambda state: rotation.unfederate(state, trust_domain))

    async def tick(self) -> None:
        """Take the steps of a rotation that are due, if any. Raises Unavailable."""
        await self._shared.change(lambda state: rotation.advance(state, self._clock(), self._lifetimes))

    async def _turn(self) -> None:
        while True:
            generation = self.generation
            pause = rotation.due(self._shared.current, self._lifetimes) - self._clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(pause, _SHORTEST_PAUSE), _LONGEST_PAUSE)):
                    await self.changed_since(generation)
            try:
                await self.tick()
            except MeshError as problem:
                logger.warning("the certificate authority cannot be rotated yet: %s", problem)


def _fingerprint(authority: SigningKey) -> str:
    return hashlib.sha256(authority.der).hexdigest()
