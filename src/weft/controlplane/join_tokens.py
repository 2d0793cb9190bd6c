"""Join tokens: each lets one process get one identity, once."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from weft.controlplane.attestation import Attested
from weft.errors import Conflict, Denied, InvalidRequest, Unauthenticated
from weft.model.spiffe import SpiffeId, agent_id, operator_id, parse_spiffe_id
from weft.store.bucket import Bucket, Store

BUCKET = "join-tokens"

PREFIX = "weft_join_"
"""Begins every join token, so that people and scanners of leaked secrets know it."""

DEFAULT_LIFETIME = 300.0
MAX_LIFETIME = 24 * 3600.0
"""Seconds in which a token must be used."""

_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the bearer of a token may become."""

    spiffe_id: str
    instance: str
    by: str
    """The operator who made it."""
    expires_at: float
    """Seconds since 1970."""
    labels: Mapping[str, str] = field(default_factory=dict)


class InvitationCodec:
    """Invitations as JSON."""

    def encode(self, value: Invitation) -> bytes:
        """Return the JSON of `value`."""
        return json.dumps(asdict(value), separators=(",", ":")).encode()

    def decode(self, data: bytes) -> Invitation:
        """Return the invitation in `data`; raise ValueError if it holds none."""
        try:
            fields: dict[str, Any] = json.loads(data)
            return Invitation(
                spiffe_id=str(fields["spiffe_id"]),
                instance=str(fields["instance"]),
                by=str(fields["by"]),
                expires_at=float(fields["expires_at"]),
                labels={str(name): str(value) for name, value in fields["labels"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an invitation: {error!r}") from error


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token that was just made: the store keeps its digest only."""

    token: str = field(repr=False)
    id: SpiffeId
    expires_at: float
    """Seconds since 1970."""


class JoinTokens:
    """Makes tokens, and attests whoever brings one. Open it with `open`."""

    def __init__(self, bucket: Bucket[Invitation], trust_domain: str) -> None:
        self._bucket = bucket
        self._trust_domain = trust_domain

    @classmethod
    async def open(cls, store: Store, trust_domain: str) -> JoinTokens:
        """Open the tokens of a mesh. Raises Unavailable."""
        return cls(await store.bucket(BUCKET, InvitationCodec()), trust_domain)

    async def invite(
        self,
        *,
        agent_type: str | None,
        instance: str,
        operator: str,
        labels: Mapping[str, str],
        lifetime: float = DEFAULT_LIFETIME,
    ) -> JoinToken:
        """A new token, for the agent `instance` of a type, or, without one, for a sidecar of `operator`.

        `lifetime` is in seconds. Raises InvalidRequest where a name or the lifetime is none, Unavailable.
        """
        if not 1 <= lifetime <= MAX_LIFETIME:
            raise InvalidRequest(f"a join token lives 1 to {MAX_LIFETIME:g} seconds, not {lifetime:g}")
        spiffe_id = (
            operator_id(self._trust_domain, operator, instance)
            if agent_type is None
            else agent_id(self._trust_domain, agent_type, instance)
        )
        token = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        expires_at = time.time() + lifetime
        invitation = Invitation(str(spiffe_id), instance, operator, expires_at, dict(labels))
        await self._bucket.create(_digest(token), invitation, ttl=lifetime)
        return JoinToken(token, spiffe_id, expires_at)

    async def attest(self, evidence: str, *, instance: str) -> Attested:
        """Whom the token `evidence` makes of its bearer. It is used up, whatever comes of it.

        Raises as `Attestor.attest` does.
        """
        entry = await self._bucket.get(_digest(evidence)) if evidence.startswith(PREFIX) else None
        if entry is None or entry.value.expires_at <= time.time():
            raise Unauthenticated(
                "the join token was used before, has expired, or never was one: have a new one made with "
                "`weft token join`"
            )
        try:
            await self._bucket.delete(entry.key, revision=entry.revision)
        except Conflict as error:
            raise Unauthenticated("the join token was used before, a moment ago") from error
        invitation = entry.value
        if invitation.instance != instance:
            raise Denied(f"the join token is for instance {invitation.instance!r}, not for {instance!r}")
        spiffe_id = parse_spiffe_id(invitation.spiffe_id)
        return Attested(spiffe_id, invitation.labels, f"operator/{invitation.by}")


def _digest(token: str) -> str:
    # The token is 256 random bits: a fast digest gives nothing away, and cannot be searched.
    return hashlib.sha256(token.encode()).hexdigest()
