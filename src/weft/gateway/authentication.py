"""Who calls: by an API key or a token from outside, by what Envoy says from inside the mesh."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from urllib.parse import quote

from weft.errors import InvalidRequest, Unauthenticated
from weft.gateway.caller import ANONYMOUS, JWT_PREFIX, KEY_PREFIX, Caller, Insider, Outsider
from weft.gateway.tokens import MAX_TOKEN_LENGTH, TokenVerifier
from weft.model.api_key import ApiKey, api_key_hash, is_api_key
from weft.model.gateway import GatewaySpec
from weft.model.spiffe import parse_spiffe_id

CALLER_HEADER = "x-weft-caller"
"""The SPIFFE ID of a caller from inside, as the Envoy beside this gateway has verified it."""

DOOR_HEADER = "x-weft-door"
"""`outside` on whatever came in by the listener for outside callers."""

KEY_HEADER = "x-api-key"
AUTHORIZATION_HEADER = "authorization"

_BEARER = re.compile(rf"bearer +([!-~]{{1,{MAX_TOKEN_LENGTH}}})", re.IGNORECASE)

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI has them."""


class Authentication:
    """Tells who calls one gateway."""

    def __init__(
        self,
        gateway: str,
        spec: Callable[[], GatewaySpec],
        keys: Callable[[], Mapping[str, ApiKey]],
        verifier: TokenVerifier,
        *,
        look_again: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`gateway` is its name; `keys` gives the API keys that are good now, by their SHA-256.

        `look_again` is called for a key that is not among them, which may be new: it brings them up to date,
        or decides that they are.
        """
        self._look_again = look_again
        self._gateway = gateway
        self._spec = spec
        self._keys = keys
        self._verifier = verifier
        self._clock = clock

    async def caller(self, headers: Headers, *, outside: bool = False) -> Caller:
        """Who sends `headers`; `outside` says that it is nobody from inside, whatever they tell.

        Raises Unauthenticated where they prove nothing, Unavailable where that cannot be found out now.
        """
        given = _Given(headers)
        inside = given.one(CALLER_HEADER)
        if inside is not None and not outside and given.one(DOOR_HEADER) is None:
            try:
                return Insider(parse_spiffe_id(inside))
            except InvalidRequest as error:
                raise Unauthenticated(f"{CALLER_HEADER} is wrong: {error.detail}") from error
        credential = _credential(given)
        if credential is None:
            return self._anonymous()
        if is_api_key(credential):
            return await self._by_key(credential)
        return await self._by_token(credential)

    def still_good(self, caller: Caller) -> bool:
        """Whether who was let in a while ago would be let in yet."""
        if isinstance(caller, Insider):
            return True
        expired = caller.expires_at is not None and self._clock() >= caller.expires_at
        return not expired and (not caller.key or caller.key in self._keys())

    def _anonymous(self) -> Outsider:
        spec = self._spec()
        if not spec.anonymous:
            raise Unauthenticated(
                f"show an API key (in {KEY_HEADER}, or as a bearer token), or a token of an issuer that this "
                "gateway trusts"
            )
        return Outsider(self._submitter(ANONYMOUS), spec.rate, anonymous=True)

    async def _by_key(self, text: str) -> Outsider:
        # The key itself is compared with nothing: whoever measures how long it takes to find a hash learns
        # about the hash at most, for which no key is to be found.
        digest = api_key_hash(text)
        key = self._keys().get(digest)
        if key is None and self._look_again is not None:
            await self._look_again()
            key = self._keys().get(digest)
        if key is None:
            raise Unauthenticated("the API key is not known: it is wrong, or was revoked")
        if key.expires_at is not None and self._clock() >= key.expires_at:
            raise Unauthenticated(f"the API key {key.name!r} has expired: have a new one made")
        return Outsider(
            self._submitter(KEY_PREFIX + key.name),
            key.rate or self._spec().rate,
            queues=key.queues,
            agents=key.agents,
            topics=key.topics,
            sees_all=key.sees_all,
            expires_at=key.expires_at,
            key=digest,
        )

    async def _by_token(self, token: str) -> Outsider:
        spec = self._spec()
        subject = await self._verifier.verify(token, spec.jwt)
        # With its issuer: two of them may call different people the same.
        name = f"{JWT_PREFIX}{quote(subject.subject, safe='')}@{quote(subject.issuer, safe=':/')}"
        return Outsider(self._submitter(name), spec.rate, expires_at=subject.expires_at)

    def _submitter(self, name: str) -> str:
        return f"{self._gateway}/{name}"


class _Given:
    """The headers of a request of which none may be there twice."""

    def __init__(self, headers: Headers) -> None:
        self._headers = list(headers)

    def one(self, name: str) -> str | None:
        """The header's value; None if it is not there. Raises Unauthenticated if it is there twice."""
        wanted = name.encode()
        values = [value for each, value in self._headers if each == wanted]
        if len(values) > 1:
            raise Unauthenticated(f"there are {len(values)} headers {name}: send one")
        return values[0].decode("latin-1") if values else None


def _credential(given: _Given) -> str | None:
    key = given.one(KEY_HEADER)
    if key is not None:
        if not is_api_key(key):
            raise Unauthenticated(f"what {KEY_HEADER} holds is not an API key")
        return key
    authorization = given.one(AUTHORIZATION_HEADER)
    if authorization is None:
        return None
    match = _BEARER.fullmatch(authorization)
    if match is None:
        raise Unauthenticated(f"send `{AUTHORIZATION_HEADER}: Bearer`, then a key or token")
    return match[1]
