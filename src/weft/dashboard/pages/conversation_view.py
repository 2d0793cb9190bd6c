"""What is kept of a conversation, as people read it: messages in order, artifacts, cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from weft.dashboard.pages.audit_records import short_identity
from weft.dashboard.pages.spans import plain

PAGE = 20
"""Messages on one page: each may have almost a megabyte."""

MAX_SHOWN = 8000
"""Characters of a message that are shown."""


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One message."""

    number: int
    role: str
    text: str
    left_out: int
    """Characters that are not shown."""
    at: float
    """Seconds since 1970."""
    author: str
    """Who appended it, in short: `<type>/<instance>`."""
    agent_type: str
    """Of the author; empty if it is no agent."""
    metadata: str

    @property
    def voice(self) -> str:
        """`user`, `assistant`, `system` or `tool`; else `other`."""
        known = {"user", "assistant", "system", "tool"}
        return self.role.lower() if self.role.lower() in known else "other"


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """One artifact. It is named, and never shown: its type is what somebody says."""

    name: str
    media_type: str
    size: float
    """Bytes."""
    sha256: str
    at: float


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is kept of a conversation."""

    id: str
    tenant: str
    created_at: float
    expires_at: float
    count: int
    """Messages in all."""
    messages: tuple[MessageRow, ...]
    state: str
    artifacts: tuple[ArtifactRow, ...]

    @property
    def first(self) -> int:
        """The number of the first message that is shown; 0: none is."""
        return self.messages[0].number if self.messages else 0

    @property
    def last(self) -> int:
        """The number of the last message that is shown."""
        return self.messages[-1].number if self.messages else 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What the calls of a conversation used of one model."""

    model: str
    calls: int
    failed: int
    tokens: int
    usd: float


def asked(context_id: str, tenant: str, after: int = -PAGE) -> str:
    """The API's path of a conversation and its messages behind number `after`; negative: the last so many."""
    query = urlencode({"tenant": tenant or "default", "after": after, "limit": PAGE})
    return f"/v1/contexts/{quoted(context_id)}?{query}"


def quoted(context_id: str) -> str:
    """An id in a path: `.` and `..` too, which would else be taken for steps."""
    return quote(context_id, safe="").replace(".", "%2E")


def conversation_of(answer: Any) -> Conversation:
    """The conversation in what the API answers."""
    found = answer if isinstance(answer, dict) else {}
    return Conversation(
        id=str(found.get("id") or ""),
        tenant=str(found.get("tenant") or ""),
        created_at=_number(found.get("createdAt")),
        expires_at=_number(found.get("expiresAt")),
        count=int(_number(found.get("messageCount"))),
        messages=tuple(_message(each) for each in _dicts(found.get("messages"))),
        state=_cut(plain(found.get("state")))[0] if found.get("stateRevision") else "",
        artifacts=tuple(_artifact(each) for each in _dicts(found.get("artifacts"))),
    )


def usage_of(answer: Any, context_id: str) -> list[Usage]:
    """What a conversation used, by model, from the usage of all."""
    items = _dicts(answer.get("items")) if isinstance(answer, dict) else []
    return [
        Usage(
            model=str(each.get("model") or ""),
            calls=int(_number(each.get("calls"))),
            failed=int(_number(each.get("failed"))),
            tokens=int(_number(each.get("tokens"))),
            usd=_number(each.get("usd")),
        )
        for each in items
        if each.get("context") == context_id
    ]


@dataclass(frozen=True, slots=True)
class Known:
    """A conversation that was seen, whatever is kept of it."""

    id: str
    last_seen: float
    """In a trace, in seconds since 1970; 0: in none."""
    traces: int
    errors: int
    services: tuple[str, ...]
    calls: int
    """To models."""
    tokens: int
    usd: float


def known_of(traces: Any, usage: Any) -> list[Known]:
    """The conversations that traces and the usage of models tell of, those seen last first."""
    found: dict[str, Known] = {}
    for each in _dicts(traces.get("traces")) if isinstance(traces, dict) else []:
        if context := str(each.get("context") or ""):
            found[context] = _seen(found.get(context), context, each)
    for each in _dicts(usage.get("items")) if isinstance(usage, dict) else []:
        if context := str(each.get("context") or ""):
            found[context] = _used(found.get(context), context, each)
    return sorted(found.values(), key=lambda each: (-each.last_seen, -each.tokens, each.id))


def _seen(known: Known | None, context: str, trace: Mapping[str, Any]) -> Known:
    before = known or Known(context, 0.0, 0, 0, (), 0, 0, 0.0)
    services = trace.get("services")
    new = [str(each) for each in services] if isinstance(services, list) else []
    return Known(
        context,
        max(before.last_seen, _number(trace.get("start")) + _number(trace.get("duration"))),
        before.traces + 1,
        before.errors + int(_number(trace.get("errors"))),
        tuple(dict.fromkeys([*before.services, *new])),
        before.calls,
        before.tokens,
        before.usd,
    )


def _used(known: Known | None, context: str, usage: Mapping[str, Any]) -> Known:
    before = known or Known(context, 0.0, 0, 0, (), 0, 0, 0.0)
    return Known(
        context,
        before.last_seen,
        before.traces,
        before.errors,
        before.services,
        before.calls + int(_number(usage.get("calls"))),
        before.tokens + int(_number(usage.get("tokens"))),
        before.usd + _number(usage.get("usd")),
    )


def _message(item: Mapping[str, Any]) -> MessageRow:
    text, left_out = _cut(plain(item.get("content")))
    author = short_identity(str(item.get("author") or ""))
    metadata = item.get("metadata")
    is_agent = str(item.get("author") or "").partition("://")[2].partition("/")[2].startswith("agent/")
    return MessageRow(
        number=int(_number(item.get("number"))),
        role=str(item.get("role") or ""),
        text=text,
        left_out=left_out,
        at=_number(item.get("at")),
        author=author,
        agent_type=author.partition("/")[0] if is_agent else "",
        metadata=_cut(plain(metadata))[0] if metadata else "",
    )


def _artifact(item: Mapping[str, Any]) -> ArtifactRow:
    return ArtifactRow(
        name=str(item.get("name") or ""),
        media_type=str(item.get("mediaType") or ""),
        size=_number(item.get("size")),
        sha256=str(item.get("sha256") or ""),
        at=_number(item.get("at")),
    )


def _cut(text: str) -> tuple[str, int]:
    return text[:MAX_SHOWN], max(0, len(text) - MAX_SHOWN)


def _dicts(items: Iterable[Any] | Any) -> list[dict[str, Any]]:
    return [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return float(value)
