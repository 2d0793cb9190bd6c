"""Ids of calls, each bound to the sidecar that it was given to.

The second half of an id is a digest of the first and of the sidecar's SPIFFE ID. So any replica sees whether
a sidecar tells of a call of its own, with nothing kept: it could make up ids, but of calls that do not exist.
"""

from __future__ import annotations

from hashlib import blake2s
from secrets import token_hex

_HALF = 8
"""Bytes of each half: 64 bits, which nobody guesses."""

LENGTH = 4 * _HALF
"""Characters of an id."""


def new_call_id(sidecar: str) -> str:
    """An id for a call that came through `sidecar`, a SPIFFE ID."""
    half = token_hex(_HALF)
    return half + _digest(half, sidecar)


def is_of(call_id: str, sidecar: str) -> bool:
    """Whether `call_id` may be that of a call which `sidecar` was given."""
    half = call_id[: 2 * _HALF]
    return len(call_id) == LENGTH and call_id[2 * _HALF :] == _digest(half, sidecar)


def _digest(half: str, sidecar: str) -> str:
    return blake2s(f"{half} {sidecar}".encode(), digest_size=_HALF).hexdigest()
