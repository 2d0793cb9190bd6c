"""Operators: people and programs that prove themselves to the control plane with a token.

What the control plane keeps of a token is a TokenRecord, under the token's SHA-256: a token has 256 random
bits, so nothing is gained by a slower hash, and whoever reads the store learns none.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum

from weft.errors import InvalidRequest
from weft.model.duration import parse_duration

TOKEN_VARIABLE = "WEFT_TOKEN"  # noqa: S105 -- its name
"""Environment variable: the token for a control plane that is not of the mesh here."""

DAY = 86_400.0
"""Seconds."""

DEFAULT_LIFETIME = 90 * DAY
"""Seconds a token is good for where nobody says."""

MAX_LIFETIME = 365 * DAY
MIN_LIFETIME = 60.0

_PREFIX = "weft_"  # lets scanners of source code and logs find tokens that leaked
_TOKEN = re.compile(_PREFIX + r"[-_A-Za-z0-9]{43}")
_DAYS = re.compile(r"([0-9]{1,4})d")


class Scope(StrEnum):
    """What a token lets its holder do; each includes those before it."""

    VIEWER = "viewer"
    """Read: resources, agents, sidecars, metrics, the audit."""
    OPERATOR = "operator"
    """Declare and delete resources, let sidecars join."""
    ADMIN = "admin"
    """Make and revoke tokens, rotate certificate authorities and secrets, revoke identities."""

    def includes(self, other: Scope) -> bool:
        """Whether whoever has this one may do what `other` is needed for."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is known of a token: all but the token."""

    name: str
    scope: Scope
    created: float
    """Seconds since 1970."""
    expires: float
    """Seconds since 1970."""
    created_by: str
    """Who had it made, as in the audit."""


def new_token() -> str:
    """A token nobody has seen."""
    return _PREFIX + secrets.token_urlsafe(32)


def is_token(text: str) -> bool:
    """Whether `text` has the form of a token."""
    return _TOKEN.fullmatch(text) is not None


def token_hash(token: str) -> str:
    """What stands for `token` in the store: its SHA-256, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def check_lifetime(seconds: float) -> float:
    """Return `seconds` if a token may be good for so long, else raise InvalidRequest."""
    if MIN_LIFETIME <= seconds <= MAX_LIFETIME:
        return seconds
    raise InvalidRequest(
        f"a token cannot be good for {seconds:g} s: use {MIN_LIFETIME:g} s to {MAX_LIFETIME / DAY:g} days"
    )


def parse_lifetime(text: str) -> float:
    """The seconds in `30d`, `12h`, `15m`. Raises InvalidRequest if no token may be good for so long."""
    days = _DAYS.fullmatch(text)
    try:
        return check_lifetime(int(days[1]) * DAY if days else parse_duration(text))
    except ValueError as error:
        raise InvalidRequest(f"{text[:50]!r} is no lifetime: use 30d, 12h, 15m") from error
