"""Which identities the mesh has given out, and which it has taken back."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from weft.errors import NotFound
from weft.model.spiffe import SpiffeId
from weft.store.bucket import Bucket, Store
from weft.store.followed import Followed

IDENTITIES = "identities"
REVOCATIONS = "revocations"

_GRACE = 60.0
"""Seconds that the record of an identity outlives its SVID: clocks differ."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity that some process holds, or held until a moment ago."""

    spiffe_id: str
    serial: str
    """Of its newest SVID, in hexadecimal."""
    issued_at: float
    expires_at: float
    """Seconds since 1970."""
    attested_by: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """What was attested of its holder; AccessPolicies may go by them."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """An identity that nobody may use any more."""

    spiffe_id: str
    by: str
    at: float
    """Seconds since 1970."""
    reason: str


class IdentityCodec:
    """Identities as JSON."""

    def encode(self, value: Identity) -> bytes:
        """Return the JSON of `value`."""
        return _json(value)

    def decode(self, data: bytes) -> Identity:
        """Return the identity in `data`; raise ValueError if it holds none."""
        fields = _fields(data)
        try:
            return Identity(**{**fields, "labels": dict(fields["labels"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an identity: {error!r}") from error


class RevocationCodec:
    """Revocations as JSON."""

    def encode(self, value: Revocation) -> bytes:
        """Return the JSON of `value`."""
        return _json(value)

    def decode(self, data: bytes) -> Revocation:
        """Return the revocation in `data`; raise ValueError if it holds none."""
        try:
            return Revocation(**_fields(data))
        except TypeError as error:
            raise ValueError(f"not a revocation: {error!r}") from error


class Identities:
    """The identities and revocations of a mesh, followed. Open it with `follow`."""

    def __init__(
        self,
        bucket: Bucket[Identity],
        revocations: Bucket[Revocation],
        given: Followed[Identity],
        revoked: Followed[Revocation],
    ) -> None:
        self._bucket = bucket
        self._revocations = revocations
        self._given = given
        self._revoked = revoked

    @classmethod
    @asynccontextmanager
    async def follow(cls, store: Store) -> AsyncIterator[Identities]:
        """Within the context, all that was given out and taken back, kept up to date. Raises Unavailable."""
        bucket = await store.bucket(IDENTITIES, IdentityCodec())
        revocations = await store.bucket(REVOCATIONS, RevocationCodec())
        async with (
            Followed[Identity].follow(bucket, name="identities") as given,
            Followed[Revocation].follow(revocations, name="revocations") as revoked,
        ):
            yield cls(bucket, revocations, given, revoked)

    @property
    def given(self) -> list[Identity]:
        """Every identity that is held, by SPIFFE ID."""
        return sorted(self._given.values.values(), key=lambda each: each.spiffe_id)

    @property
    def revoked(self) -> list[Revocation]:
        """Every revocation in force, by SPIFFE ID."""
        return sorted(self._revoked.values.values(), key=lambda each: each.spiffe_id)

    @property
    def labels(self) -> Mapping[str, Mapping[str, str]]:
        """The attested labels of every identity that is held, by SPIFFE ID."""
        return {each.spiffe_id: each.labels for each in self._given.values.values()}

    def attested(self, spiffe_id: str) -> Mapping[str, str] | None:
        """The labels of an identity, as far as this replica has heard; None: it has not heard of it."""
        known = self._given.values.get(_key(spiffe_id))
        return known.labels if known is not None else None

    @property
    def generations(self) -> tuple[int, int]:
        """Of what is given out and of what is taken back: each grows with every change."""
        return self._given.generation, self._revoked.generation

    @property
    def followed(self) -> tuple[Followed[Identity], Followed[Revocation]]:
        """What is given out and what is taken back, to wait for changes."""
        return self._given, self._revoked

    def is_revoked(self, spiffe_id: str) -> bool:
        """Whether nobody may use the identity any more, as far as this replica has heard."""
        return _key(spiffe_id) in self._revoked.values

    async def identity(self, spiffe_id: SpiffeId) -> Identity | None:
        """What the store holds of an identity now. Raises Unavailable."""
        entry = await self._bucket.get(_key(str(spiffe_id)))
        return entry.value if entry is not None else None

    async def note(self, identity: Identity) -> None:
        """Write down that an SVID is given out; the record goes with it. Raises Unavailable."""
        ttl = max(1.0, identity.expires_at - time.time() + _GRACE)
        await self._bucket.put(_key(identity.spiffe_id), identity, ttl=ttl)

    async def revoke(self, spiffe_id: SpiffeId, *, by: str, reason: str) -> None:
        """Take an identity back until it is restored. Raises Unavailable."""
        revocation = Revocation(str(spiffe_id), by, time.time(), reason)
        await self._revocations.put(_key(str(spiffe_id)), revocation)

    async def restore(self, spiffe_id: SpiffeId) -> None:
        """Undo a revocation. Raises NotFound if there is none, Unavailable."""
        key = _key(str(spiffe_id))
        if await self._revocations.get(key) is None:
            raise NotFound(f"{spiffe_id} is not revoked")
        await self._revocations.delete(key)


def _key(spiffe_id: str) -> str:
    # A SPIFFE ID has characters that a key may not have, and may be longer than one.
    return hashlib.sha256(spiffe_id.encode()).hexdigest()


def _json(value: Identity | Revocation) -> bytes:
    return json.dumps(asdict(value), separators=(",", ":")).encode()


def _fields(data: bytes) -> dict[str, Any]:
    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 -- what a codec raises
    return fields
