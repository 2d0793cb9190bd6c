"""Whom the sidecar's Envoy refused, for the audit: read from what it writes to its standard output.

What it writes is told by `weft.controlplane.translate.denial_log`.
"""

from __future__ import annotations

import json
import math
import re

from weft.model.audit import AuditRecord, Outcome

MAX_LINE = 8192
"""Characters of a line; a longer one is no denial."""

_MAX_FIELD = 1000
_POLICY = re.compile(r"rbac_access_denied_matched_policy\[([^\]]{1,300})\]")
_NO_POLICY = "none"
_UNAUTHENTICATED = "unauthenticated"


def parse_denial(line: str, *, observer: str = "") -> AuditRecord | None:
    """The denial that a line of Envoy's standard output tells of; None if it tells of none.

    `observer` is whose Envoy it is. Nothing in the record can be longer than 1,000 characters.
    """
    fields = _fields(line)
    if fields is None:
        return None
    match fields.get("kind"):
        case "call":
            return _call(fields, Outcome.DENIED, _policy(fields), observer)
        case "dry-run":
            return _call(fields, Outcome.WOULD_BE_DENIED, fields.get("details", ""), observer)
        case "connection":
            return _connection(fields, observer)
    return None


def _fields(line: str) -> dict[str, str] | None:
    """The fields that have a value; None if `line` is not an object of strings with a time."""
    if len(line) > MAX_LINE or not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(isinstance(each, str | None) for each in found.values()):
        return None
    fields = {name: value[:_MAX_FIELD] for name, value in found.items() if value is not None}
    return fields if _time(fields) is not None else None


def _time(fields: dict[str, str]) -> float | None:
    try:
        time = float(fields["time"])
    except (KeyError, ValueError):
        return None
    return time if math.isfinite(time) else None


def _call(fields: dict[str, str], outcome: Outcome, policy: str, observer: str) -> AuditRecord:
    target = " ".join(fields.get(name, "-") for name in ("authority", "method", "path"))
    return AuditRecord(
        time=_time(fields) or 0.0,
        who=fields.get("caller") or _unauthenticated(fields),
        action="call",
        target=target[:_MAX_FIELD],
        outcome=outcome,
        policy=policy,
        reason="" if policy else "no policy allows it, and the default is to deny",
        observer=observer,
        details=_peer(fields),
    )


def _connection(fields: dict[str, str], observer: str) -> AuditRecord:
    # Nothing that its certificate says was verified, or it says more than one thing.
    claim = {"claimed": fields["caller"]} if fields.get("caller") else {}
    return AuditRecord(
        time=_time(fields) or 0.0,
        who=_unauthenticated(fields),
        action="connect",
        target="the inbound port",
        outcome=Outcome.DENIED,
        reason=fields.get("reason") or _policy(fields),
        observer=observer,
        details={**_peer(fields), **claim},
    )


def _unauthenticated(fields: dict[str, str]) -> str:
    return f"{_UNAUTHENTICATED} {fields['peer']}" if fields.get("peer") else _UNAUTHENTICATED


def _peer(fields: dict[str, str]) -> dict[str, str]:
    return {"peer": fields["peer"]} if fields.get("peer") else {}


def _policy(fields: dict[str, str]) -> str:
    """The rule that Envoy's details name; empty if they name none."""
    found = _POLICY.search(fields.get("details", ""))
    return found[1] if found is not None and found[1] != _NO_POLICY else ""
