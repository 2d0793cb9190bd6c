"""Whether the processes of a mesh can believe each other: clocks, expiry, trust."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weft.cli.api import control_api
from weft.cli.findings import Finding, Level
from weft.cli.options import ControlPlane
from weft.errors import MeshError

CLOCK_TOLERANCE = 60.0
"""Seconds by which clocks may differ before certificates seem to be not valid yet."""

LITTLE_CLOCK_SKEW = 10.0

_DAY = 86_400.0
SOON = 30 * _DAY
"""Seconds before the end of an authority at which it should have been replaced."""

_OVERDUE = 0.25
"""The part of an SVID's life that is never reached if renewals work: they come at half of it."""


async def trust_findings(where: ControlPlane) -> list[Finding]:
    """What is to be said of the mesh that `where` names; nothing can be said if it cannot be asked."""
    try:
        async with control_api(where) as api:
            before = time.time()
            authority = await api.authority()
            identities = await api.identities()
            took = time.time() - before
    except MeshError as error:
        return [Finding(Level.FAIL, "trust", error.detail, "see `weft status`, and that the token is good")]
    return [
        *_clock(authority, before, took),
        *_authority(authority),
        *_identities(identities, authority["now"]),
    ]


def _clock(authority: Mapping[str, Any], before: float, took: float) -> Iterator[Finding]:
    # The answer was written at some time between the question and its arrival.
    behind, ahead = authority["now"] - (before + took), before - authority["now"]
    size = max(behind, ahead, 0.0)
    found = f"{size:.0f} s {'behind' if behind > 0 else 'ahead of'} the control plane's" if size else "agrees"
    if size > CLOCK_TOLERANCE:
        yield Finding(Level.FAIL, "clock", found, "set this machine's clock (NTP): certificates are refused")
    elif size > LITTLE_CLOCK_SKEW:
        yield Finding(Level.WARN, "clock", found, "have the clocks synchronised (NTP)")
    else:
        yield Finding(Level.OK, "clock", found)


def _authority(authority: Mapping[str, Any]) -> Iterator[Finding]:
    for name, field, level in (
        ("root certificate", "rootExpiresAt", "root"),
        ("intermediate certificate", "issuingExpiresAt", "intermediate"),
    ):
        left = authority[field] - authority["now"]
        limit = SOON if level == "root" else _DAY
        if left <= 0:
            yield Finding(Level.FAIL, name, "has expired", "stop and start the mesh with `weft up --fresh`")
        elif left < limit:
            advice = f"it should have been replaced: `weft identity rotate --level {level}`"
            yield Finding(Level.WARN, name, f"expires in {_days(left)}", advice)
        else:
            yield Finding(Level.OK, name, f"expires in {_days(left)}")


def _identities(identities: Sequence[Mapping[str, Any]], now: float) -> Iterator[Finding]:
    late = [each["spiffeId"] for each in identities if _overdue(each, now)]
    if late:
        found = f"not renewed in time: {', '.join(late[:5])}{', …' if len(late) > 5 else ''}"
        yield Finding(Level.WARN, "identities", found, "see the log of those sidecars for why")
    else:
        yield Finding(Level.OK, "identities", f"{len(identities)} held, all renewed in time")


def _overdue(identity: Mapping[str, Any], now: float) -> bool:
    life = identity["expiresAt"] - identity["issuedAt"]
    left = identity["expiresAt"] - now
    # One that has expired is no longer used, as a rule: its holder has stopped.
    return bool(0 < left < life * _OVERDUE)


def _days(seconds: float) -> str:
    days = int(seconds // _DAY)
    return f"{days} days" if days > 1 else f"{seconds / 3600:.1f} hours"
