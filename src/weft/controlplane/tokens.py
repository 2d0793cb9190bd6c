"""Operators' tokens: made, checked, revoked. Kept in the store, and known to every replica at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

from weft.errors import Conflict, InvalidRequest, NotFound, Unauthenticated, Unavailable
from weft.model.names import check_name
from weft.model.operator import (
    DAY,
    DEFAULT_LIFETIME,
    MAX_LIFETIME,
    Scope,
    TokenRecord,
    check_lifetime,
    is_token,
    new_token,
    token_hash,
)
from weft.store.bucket import Bucket, Store
from weft.store.followed import Followed

BUCKET = "tokens"

MAX_TOKENS = 10_000
"""More are not kept: each is in the memory of every replica."""

_KEPT_AFTER_EXPIRY = 7 * DAY  # so that its holder is told that it has expired
_HEARING_LIMIT = 5.0  # seconds; word of a write comes in milliseconds


class TokenCodec:
    """Token records as JSON."""

    def encode(self, value: TokenRecord) -> bytes:
        """Return the JSON of `value`."""
        return json.dumps(asdict(value), separators=(",", ":")).encode()

    def decode(self, data: bytes) -> TokenRecord:
        """Return the record in `data`; raise ValueError if it holds none."""
        try:
            fields: dict[str, Any] = json.loads(data)
            return TokenRecord(
                name=check_name(fields["name"], "token"),
                scope=Scope(fields["scope"]),
                created=float(fields["created"]),
                expires=float(fields["expires"]),
                created_by=str(fields["created_by"]),
            )
        except (KeyError, TypeError, AttributeError, InvalidRequest) as error:
            raise ValueError(f"not the record of a token: {error!r}") from error


class Tokens:
    """The tokens of a mesh, followed in the background. Open it with `follow`.

    What `check` says is as new as the last word from the store. While the store cannot be reached, the tokens
    known before go on being good: none can be revoked then either.
    """

    def __init__(
        self,
        bucket: Bucket[TokenRecord],
        known: Followed[TokenRecord],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`known` follows `bucket`; `clock` tells the seconds since 1970."""
        self._bucket = bucket
        self._known = known
        self._clock = clock
        # Word of an older write, which may come after the revocation, must not bring a token back.
        self._revoked: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def follow(cls, store: Store, clock: Callable[[], float] = time.time) -> AsyncIterator[Tokens]:
        """Within the context, the tokens in `store`, complete and kept up to date. Raises Unavailable."""
        bucket = await store.bucket(BUCKET, TokenCodec())
        async with Followed[TokenRecord].follow(bucket, name="tokens") as known:
            yield cls(bucket, known, clock)

    def check(self, token: str) -> TokenRecord:
        """The record of `token`. Raises Unauthenticated if it is unknown, revoked or expired.

        Raises Unavailable as long as nothing is known of any token.
        """
        if not self._known.generation:
            raise Unavailable("this replica does not know the tokens yet: try again in a moment")
        key = token_hash(token) if is_token(token) else ""
        record = self._known.values.get(key)
        if record is None or key in self._revoked:
            raise Unauthenticated(
                "the token is not known: it was revoked, has expired long ago, or is another mesh's"
            )
        if record.expires <= self._clock():
            raise Unauthenticated(f"token {record.name!r} has expired: make another with `weft token create`")
        return record

    @property
    def records(self) -> list[TokenRecord]:
        """All that are kept, by name; some may have expired."""
        kept = (each for key, each in self._known.values.items() if key not in self._revoked)
        return sorted(kept, key=lambda each: each.name)

    async def create(
        self, name: str, scope: Scope, *, created_by: str, lifetime: float = DEFAULT_LIFETIME
    ) -> tuple[str, TokenRecord]:
        """A new token, which is told here and nowhere again, and its record. It is good when this returns.

        `lifetime` is in seconds. Raises InvalidRequest if that or the name is out of limits, Conflict if the
        name is taken.
        """
        token = new_token()
        return token, await self._keep(token, name, scope, created_by, lifetime)

    async def adopt(
        self,
        token: str,
        name: str,
        scope: Scope,
        *,
        created_by: str = "bootstrap",
        lifetime: float = MAX_LIFETIME,
    ) -> TokenRecord:
        """Take a token that was made elsewhere: the one with which a mesh begins.

        One that is known already stays as it is; what else had the name is revoked. Raises InvalidRequest if
        it has not the form of a token.
        """
        if not is_token(token):
            raise InvalidRequest("what is to be adopted is no token: tokens are made by `weft token create`")
        with suppress(Unauthenticated):
            known = self.check(token)
            if (known.name, known.scope) == (name, scope):
                return known
        # Not its own: replicas that start together adopt the same one, and each may find what another wrote.
        namesakes = [each.key for each in await self._bucket.entries() if each.value.name == name]
        await self._remove(each for each in namesakes if each != token_hash(token))
        return await self._keep(token, name, scope, created_by, lifetime)

    async def revoke(self, name: str) -> None:
        """Make the token `name` worthless: here when this returns, on other replicas a moment later.

        Raises NotFound.
        """
        keys = [each.key for each in await self._bucket.entries() if each.value.name == name]
        if not keys:
            raise NotFound(f"there is no token {name[:100]!r}; see which there are with `weft token list`")
        await self._remove(keys)

    async def _keep(
        self, token: str, name: str, scope: Scope, created_by: str, lifetime: float
    ) -> TokenRecord:
        now = self._clock()
        record = TokenRecord(
            check_name(name, "token"), scope, now, now + check_lifetime(lifetime), created_by
        )
        key = token_hash(token)
        entries = await self._bucket.entries()
        namesakes = [each for each in entries if each.value.name == name and each.key != key]
        if any(each.value.expires > now for each in namesakes):
            raise Conflict(f"there is a token {name!r} already: revoke it first, or choose another name")
        if len(entries) >= MAX_TOKENS:
            raise Conflict(f"there are {MAX_TOKENS} tokens already: revoke some")
        await self._remove(each.key for each in namesakes)
        await self._bucket.put(key, record, ttl=lifetime + _KEPT_AFTER_EXPIRY)
        self._revoked.discard(key)
        await self._hear_of(key)
        return record

    async def _hear_of(self, key: str) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEARING_LIMIT):
                while key not in self._known.values:
                    await self._known.changed_since(self._known.generation)

    async def _remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._revoked.add(key)
            await self._bucket.delete(key)
