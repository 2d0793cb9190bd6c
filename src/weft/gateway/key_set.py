"""The public keys of an issuer of tokens: a JSON Web Key Set (RFC 7517), fetched and kept.

Keys that were fetched once go on being good while the issuer cannot be reached.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from weft.aio.tasks import TaskOwner
from weft.errors import InvalidRequest, Unavailable
from weft.model.gateway import JwtIssuer

if TYPE_CHECKING:
    import httpx

REFRESH_INTERVAL = 600.0
"""Seconds after which keys are asked for anew."""

MIN_INTERVAL = 10.0
"""Seconds that lie between two questions to an issuer at least, however many unknown keys turn up."""

FETCH_TIMEOUT = 5.0
"""Seconds for one question, all in all."""

MAX_KEYS = 64
"""Of a set; further ones are left out."""

MAX_SET_BYTES = 256 * 1024

_MIN_RSA_BITS = 2048
# Signatures only: no shared secrets (HS256), nothing unsigned (none).
_ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key with which an issuer's signatures are verified."""

    id: str | None
    algorithms: tuple[str, ...]
    """For which it may be used."""
    key: Any
    """As PyJWT takes it."""


def parse_key_set(text: bytes | str) -> list[PublicKey]:
    """The keys for signatures in a JSON Web Key Set; others, weak and strange ones are left out.

    Raises InvalidRequest if `text` is no such set, or none of its keys can be used.
    """
    try:
        document = json.loads(text)
        entries = document["keys"]
        usable = [key for each in entries[:MAX_KEYS] if (key := _key(each)) is not None]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidRequest("this is not a JSON Web Key Set") from error
    if not usable:
        raise InvalidRequest("the JSON Web Key Set has no key for RS256, ES256 or EdDSA signatures")
    return usable


def _key(entry: Any) -> PublicKey | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    permitted, key_id = _ALGORITHMS.get(str(entry.get("kty")), ()), entry.get("kid")
    if not permitted or not isinstance(key_id, str | None):
        return None
    try:
        key = jwt.PyJWK.from_dict(entry)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key.key, RSAPublicKey):
        if key.key.key_size < _MIN_RSA_BITS:
            return None
        algorithms = permitted if entry.get("alg") is None else (key.algorithm_name,)
    else:
        algorithms = (key.algorithm_name,)
    return PublicKey(key_id, algorithms, key.key) if set(algorithms) <= set(permitted) else None


class KeySet:
    """The keys of one issuer."""

    def __init__(self, issuer: JwtIssuer, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells seconds. Raises InvalidRequest if `issuer` brings keys that are none."""
        self._issuer = issuer
        self._clock = clock
        self._keys = parse_key_set(issuer.jwks) if issuer.jwks is not None else []
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()
        self._background = TaskOwner(f"keys of {issuer.issuer}")
        self._refreshing: asyncio.Task[None] | None = None

    async def candidates(self, kid: str | None) -> Sequence[PublicKey]:
        """The keys that a token may be signed with which names key `kid`, or (None) names none.

        Raises Unavailable while no key is known because the issuer cannot be reached.
        """
        if not self._matching(kid):
            await self._ask()
        elif self._is_old():
            self._refresh()
        if not self._keys:
            raise Unavailable(
                f"the keys of {self._issuer.issuer} could not be fetched: its tokens cannot be checked now"
            )
        return self._matching(kid)

    async def aclose(self) -> None:
        """End what is under way in the background."""
        await self._background.close()

    def _matching(self, kid: str | None) -> Sequence[PublicKey]:
        return self._keys if kid is None else [key for key in self._keys if key.id == kid]

    def _is_old(self) -> bool:
        return self._asked_at is None or self._clock() - self._asked_at > REFRESH_INTERVAL

    def _refresh(self) -> None:
        if self._issuer.jwks_url is not None and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = self._background.start(self._ask(), name="refresh")

    async def _ask(self) -> None:
        if self._issuer.jwks_url is None:
            return
        before = self._asked_at
        async with self._asking:
            # Somebody else has asked while this one waited, or a moment ago.
            if self._asked_at != before or (before is not None and self._clock() - before < MIN_INTERVAL):
                return
            self._asked_at = self._clock()
            try:
                self._keys = parse_key_set(await _fetch(self._issuer.jwks_url))
            except (InvalidRequest, Unavailable) as error:
                logger.warning("the keys of %s at %s: %s", self._issuer.issuer, self._issuer.jwks_url, error)


async def _fetch(url: str) -> bytes:
    import httpx  # noqa: PLC0415 - has a terminal library with it, and few gateways ask an issuer

    try:
        async with (
            asyncio.timeout(FETCH_TIMEOUT),
            httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=FETCH_TIMEOUT) as client,
            client.stream("GET", url, headers={"accept": "application/json"}) as response,
        ):
            if response.status_code != 200:
                raise Unavailable(f"answered with status {response.status_code}")
            return await _limited(response)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise Unavailable(f"cannot be fetched: {str(error) or type(error).__name__}") from error


async def _limited(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_SET_BYTES:
            raise Unavailable(f"is larger than {MAX_SET_BYTES} bytes")
    return bytes(body)
