"""Codes with which somebody who has a token signs in at a browser, so that no token is in a URL.

A code is the token, sealed, with the moment at which it ends. Nothing is kept of one until it is used.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from collections.abc import Callable

from weft.controlplane.sealing import Sealer
from weft.errors import Conflict, MeshError, Unauthenticated
from weft.store.bucket import Bucket, Store

BUCKET = "dashboard-codes"

LIFETIME = 60.0
"""Seconds for which a code is good."""

MAX_CODE_LENGTH = 1000

_CONTEXT = "dashboard code"
_REFUSED = "the code was used before, has expired, or never was one: run `weft dashboard` again"


class _UsedCodec:
    def encode(self, value: float) -> bytes:
        return str(value).encode()

    def decode(self, data: bytes) -> float:
        return float(data)


class DashboardCodes:
    """Makes codes, and takes each once, whichever replica made it. Open it with `open`."""

    def __init__(self, used: Bucket[float], sealer: Sealer, clock: Callable[[], float] = time.time) -> None:
        """`used` keeps which codes were; `clock` tells the seconds since 1970."""
        self._used = used
        self._sealer = sealer
        self._clock = clock

    @classmethod
    async def open(
        cls, store: Store, sealer: Sealer, clock: Callable[[], float] = time.time
    ) -> DashboardCodes:
        """The codes of a mesh. Raises Unavailable."""
        return cls(await store.bucket(BUCKET, _UsedCodec()), sealer, clock)

    def make(self, token: str) -> tuple[str, float]:
        """A code for whoever holds `token`, and when it ends (seconds since 1970)."""
        until = self._clock() + LIFETIME
        content = json.dumps({"token": token, "until": until, "id": secrets.token_hex(16)}).encode()
        sealed = self._sealer.seal(content, context=_CONTEXT)
        return base64.urlsafe_b64encode(sealed).decode().rstrip("="), until

    async def redeem(self, code: str) -> str:
        """The token for which `code` was made. Raises Unauthenticated unless it is good yet, Unavailable."""
        try:
            padded = code[:MAX_CODE_LENGTH] + "=" * (-len(code) % 4)
            content = json.loads(self._sealer.open(base64.urlsafe_b64decode(padded), context=_CONTEXT))
            token, until, number = str(content["token"]), float(content["until"]), str(content["id"])
        except (MeshError, binascii.Error, ValueError, KeyError, TypeError) as error:
            raise Unauthenticated(_REFUSED) from error
        if until <= self._clock():
            raise Unauthenticated(_REFUSED)
        try:
            await self._used.create(number, until, ttl=2 * LIFETIME)
        except Conflict as error:
            raise Unauthenticated(_REFUSED) from error
        return token
