"""JSON Web Tokens (RFC 7519) of the issuers that a gateway trusts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from weft.errors import Unauthenticated
from weft.gateway.key_set import KeySet, PublicKey
from weft.model.gateway import JwtIssuer

MAX_TOKEN_LENGTH = 8192
"""Characters of a token."""

MAX_SUBJECT_LENGTH = 255
"""Characters of the claim `sub`, as in OpenID Connect."""

LEEWAY = 10.0
"""Seconds that clocks may differ."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a token speaks of."""

    issuer: str
    subject: str
    expires_at: float
    """Seconds since 1970."""


class TokenVerifier:
    """Verifies tokens."""

    def __init__(self) -> None:
        self._key_sets: dict[JwtIssuer, KeySet] = {}

    async def verify(self, token: str, issuers: Sequence[JwtIssuer]) -> Subject:
        """Whom `token` speaks of, which one of `issuers` must have signed.

        Raises Unauthenticated if it is not good, Unavailable while the issuer's keys cannot be had.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated(f"the token is longer than {MAX_TOKEN_LENGTH} characters")
        try:
            header = jwt.get_unverified_header(token)
            claimed: Any = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthenticated("this is neither an API key nor a JSON Web Token") from None
        issuer = next((each for each in issuers if each.issuer == claimed), None)
        if issuer is None:
            raise Unauthenticated("the token is of an issuer that this gateway does not trust")
        if header.get("crit"):
            raise Unauthenticated("the token asks for extensions that this gateway does not know")
        kid = header.get("kid")
        keys = await self._key_set(issuer, issuers).candidates(kid if isinstance(kid, str) else None)
        algorithm = header.get("alg")
        fitting = [key for key in keys if algorithm in key.algorithms]
        if not fitting:
            raise Unauthenticated("the token is signed with a key or an algorithm unknown of its issuer")
        return _verified(token, str(algorithm), fitting, issuer)

    async def aclose(self) -> None:
        """End what is under way in the background."""
        for each in self._key_sets.values():
            await each.aclose()

    def _key_set(self, issuer: JwtIssuer, issuers: Sequence[JwtIssuer]) -> KeySet:
        if issuer not in self._key_sets:
            # The resource has changed: what it does not name any more is let go of.
            self._key_sets = {known: keys for known, keys in self._key_sets.items() if known in issuers}
            self._key_sets[issuer] = KeySet(issuer)
        return self._key_sets[issuer]


def _verified(token: str, algorithm: str, keys: Sequence[PublicKey], issuer: JwtIssuer) -> Subject:
    failure: jwt.InvalidTokenError | None = None
    for key in keys:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=list(issuer.audiences),
                issuer=issuer.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.InvalidSignatureError as error:
            failure = error
        except (jwt.InvalidTokenError, OverflowError) as error:
            raise Unauthenticated(f"the token is refused: {error}") from None
        else:
            return _subject(claims, issuer)
    raise Unauthenticated(f"the token is refused: {failure}") from None


def _subject(claims: dict[str, Any], issuer: JwtIssuer) -> Subject:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT_LENGTH:
        raise Unauthenticated(f"the token's subject is not a text of 1 to {MAX_SUBJECT_LENGTH} characters")
    return Subject(issuer.issuer, subject, float(claims["exp"]) + LEEWAY)
