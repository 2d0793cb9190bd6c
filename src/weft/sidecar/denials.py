"""Whom the sidecar's Envoy refused, for the audit: read from what it writes to its standard output.

What it writes is told by `weft.controlplane.translate.denial_log`.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Callable

from weft.model.audit import AuditRecord, Outcome
from weft.sidecar.access_lines import is_access_line

MAX_LINE = 8192
"""Characters of a line; a longer one is no denial."""

_MAX_FIELD = 1000
_POLICY = re.compile(r"rbac_access_denied_matched_policy\[([^\]]{1,300})\]")
_NO_POLICY = "none"
_UNAUTHENTICATED = "unauthenticated"

_WINDOW_SECONDS = 10.0
_DENIALS_PER_WINDOW = 100


def _unread(_line: str) -> None:
    """For those whom only denials concern."""


async def relay_denials(
    stream: asyncio.StreamReader,
    report: Callable[[AuditRecord], None],
    *,
    callee: str,
    observer: str,
    own: str = "",
    access: Callable[[str], None] = _unread,
) -> None:
    """Pass the denials that `stream` tells of on to `report` until it ends: 100 in 10 seconds at most.

    `access` gets the lines that only tell of calls, where a Telemetry wants them. The others are as for
    `parse_denial`. Those who are refused set the number of denials: how many were left out is told by a
    record of its own, before the next one.
    """
    now = asyncio.get_running_loop().time
    window_ends, passed_on, left_out = 0.0, 0, 0
    async for record in _records(stream, callee, observer, own, access):
        if now() >= window_ends:
            if left_out:
                report(_left_out(record, left_out))
            window_ends, passed_on, left_out = now() + _WINDOW_SECONDS, 0, 0
        if passed_on < _DENIALS_PER_WINDOW:
            passed_on += 1
            report(record)
        else:
            left_out += 1


async def _records(
    stream: asyncio.StreamReader, callee: str, observer: str, own: str, access: Callable[[str], None]
) -> AsyncIterator[AuditRecord]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue  # longer than the stream's buffer: dropped by the reader itself
        if not line:
            return
        text = line.decode(errors="replace").rstrip()
        if is_access_line(text):
            access(text)
            continue
        record = parse_denial(text, callee=callee, observer=observer, own=own)
        if record is not None:
            yield record


def _left_out(after: AuditRecord, number: int) -> AuditRecord:
    return AuditRecord(
        time=after.time,
        who="several",
        action="call",
        target="the inbound port",
        outcome=Outcome.DENIED,
        reason=f"{number} more denials are not told one by one",
        observer=after.observer,
    )


def parse_denial(line: str, *, callee: str, observer: str, own: str = "") -> AuditRecord | None:
    """The denial that a line of Envoy's standard output tells of; None if it tells of none.

    `callee` is the type of the agent that was called, `observer` whose Envoy it is, `own` its SPIFFE ID.
    Nothing in the record can be longer than 1,000 characters.
    """
    fields = _fields(line)
    if fields is None:
        return None
    match fields.get("kind"):
        case "call":
            return _call(fields, Outcome.DENIED, _policy(fields), callee, observer)
        case "dry-run":
            return _call(fields, Outcome.WOULD_BE_DENIED, fields.get("policy", ""), callee, observer)
        case "connection":
            return _connection(fields, observer)
        case "egress" | "outbound" as kind:
            return _own(kind, fields, own or observer, observer)
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


def _call(fields: dict[str, str], outcome: Outcome, policy: str, callee: str, observer: str) -> AuditRecord:
    target = " ".join((callee, fields.get("method", "-"), fields.get("path", "-")))
    return AuditRecord(
        time=_time(fields) or 0.0,
        who=fields.get("caller") or _unauthenticated(fields),
        action="call",
        target=target[:_MAX_FIELD],
        outcome=outcome,
        policy=policy,
        reason="" if policy else "no policy allows it, and the default is to deny",
        observer=observer,
        details={name: fields[name] for name in ("peer", "authority") if fields.get(name)},
    )


def _own(kind: str, fields: dict[str, str], who: str, observer: str) -> AuditRecord:
    """What the agent itself asked for: something outside the mesh, or an agent without a sidecar."""
    outside = kind == "egress"
    told = ("method", "authority") if outside else ("destination", "method", "path")
    return AuditRecord(
        time=_time(fields) or 0.0,
        who=who,
        action="reach outside" if outside else "call",
        target=" ".join(fields.get(each, "-") for each in told)[:_MAX_FIELD],
        outcome=Outcome.DENIED,
        policy=fields.get("policy", "") if outside else _policy(fields),
        observer=observer,
    )


def _connection(fields: dict[str, str], observer: str) -> AuditRecord:
    # Nothing that its certificate says was verified, or it says more than one thing.
    known = {"peer": fields.get("peer"), "claimed": fields.get("caller")}
    return AuditRecord(
        time=_time(fields) or 0.0,
        who=_unauthenticated(fields),
        action="connect",
        target="the inbound port",
        outcome=Outcome.DENIED,
        reason=fields.get("reason") or _policy(fields),
        observer=observer,
        details={name: value for name, value in known.items() if value},
    )


def _unauthenticated(fields: dict[str, str]) -> str:
    return f"{_UNAUTHENTICATED} {fields['peer']}" if fields.get("peer") else _UNAUTHENTICATED


def _policy(fields: dict[str, str]) -> str:
    """The rule that Envoy's details name; empty if they name none."""
    found = _POLICY.search(fields.get("details", ""))
    return found[1] if found is not None and found[1] != _NO_POLICY else ""
