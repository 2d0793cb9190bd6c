"""What gateways need to know: the API keys of callers from outside, and what webhooks are signed with."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from weft.controlplane.sealing import Sealer
from weft.errors import Conflict, NotFound
from weft.model.api_key import ApiKey, ApiKeyCodec, api_key_hash, new_api_key
from weft.model.gateway import Rate
from weft.model.names import check_name
from weft.store.bucket import Bucket, Store

KEYS_BUCKET = "gateway-keys"
"""Records of API keys: keys `<gateway>.<name>`."""

SECRETS_BUCKET = "gateway-secrets"
"""Sealed, and one for the whole mesh, so that what a receiver verifies does not depend on the gateway."""

MAX_KEYS = 10_000
"""Of one gateway: each is in the memory of all its instances."""

SECRET_BYTES = 32

_SECRET_KEY = "webhooks"  # noqa: S105 -- where it is


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """What is wanted of an API key; the fields are those of ApiKey."""

    name: str
    rate: Rate | None = None
    queues: tuple[str, ...] | None = None
    agents: tuple[str, ...] | None = None
    topics: tuple[str, ...] | None = None
    sees_all: bool = False
    expires_in: float | None = None
    """Seconds; None: never."""


@dataclass(frozen=True, slots=True)
class WebhookSecret:
    """What webhooks are signed with, by way of secrets made from it."""

    value: bytes = field(repr=False)


class Gateways:
    """The keys of every gateway's callers. Open it with `open`."""

    def __init__(self, keys: Bucket[ApiKey], sealed: Bucket[bytes], sealer: Sealer) -> None:
        self._keys = keys
        self._sealed = sealed
        self._sealer = sealer

    @classmethod
    async def open(cls, store: Store, sealer: Sealer) -> Gateways:
        """The keys in `store`. Raises Unavailable."""
        keys = await store.bucket(KEYS_BUCKET, ApiKeyCodec())
        return cls(keys, await store.bucket(SECRETS_BUCKET, _Bytes()), sealer)

    async def keys(self, gateway: str, *, since: float) -> list[ApiKey]:
        """All keys of a gateway that was declared at `since` (seconds since 1970), by name.

        Some may have expired. Those of another gateway, which had its name before, are none of its.
        """
        entries = await self._keys.entries(check_name(gateway, "gateway"))
        return [each.value for each in entries if each.value.created_at >= since]

    async def create(self, gateway: str, wanted: KeyRequest, *, since: float) -> tuple[str, ApiKey]:
        """A new key, which is told here and nowhere again, and its record; `since` is as for `keys`.

        Raises Conflict if the name is taken or there are too many, InvalidRequest for names that are none.
        """
        if len(await self.keys(gateway, since=since)) >= MAX_KEYS:
            raise Conflict(f"gateway {gateway!r} has {MAX_KEYS} keys already: delete some")
        key = new_api_key(wanted.name)
        now = time.time()
        record = ApiKey.model_validate(
            {
                "name": wanted.name,
                "sha256": api_key_hash(key),
                "rate": wanted.rate,
                "queues": wanted.queues,
                "agents": wanted.agents,
                "topics": wanted.topics,
                "sees_all": wanted.sees_all,
                "created_at": now,
                "expires_at": None if wanted.expires_in is None else now + wanted.expires_in,
            }
        )
        place = f"{gateway}.{wanted.name}"
        left = await self._keys.get(place)
        if left is not None and left.value.created_at < since:
            await self._keys.delete(place, revision=left.revision)
        await self._keys.create(place, record)
        return key, record

    async def delete(self, gateway: str, name: str) -> None:
        """Make a key worthless: at the gateways within seconds. Raises NotFound."""
        key = f"{check_name(gateway, 'gateway')}.{check_name(name, 'key')}"
        if await self._keys.get(key) is None:
            raise NotFound(f"gateway {gateway!r} has no key {name!r}; see `weft gateway keys {gateway}`")
        await self._keys.delete(key)

    async def webhook_secret(self) -> WebhookSecret:
        """What webhooks are signed with; made when it is first asked for. Raises SealBroken."""
        while (entry := await self._sealed.get(_SECRET_KEY)) is None:
            sealed = self._sealer.seal(secrets.token_bytes(SECRET_BYTES), context=SECRETS_BUCKET)
            try:
                await self._sealed.create(_SECRET_KEY, sealed)
            except Conflict:
                continue  # another replica was first: theirs it is
        return WebhookSecret(self._sealer.open(entry.value, context=SECRETS_BUCKET))


class _Bytes:
    """Bytes as they are."""

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data
