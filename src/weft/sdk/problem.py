"""Errors on the wire: RFC 9457 problem details with `x-weft-error`, written by agents and read by callers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from weft.errors import (
    PROBLEM_MEDIA_TYPE,
    PROBLEM_TYPE_PREFIX,
    AgentFailed,
    Conflict,
    Denied,
    Interrupted,
    InvalidRequest,
    InvalidResource,
    LoopDetected,
    MeshError,
    NoHealthyAgent,
    NoSuchAgent,
    NotFound,
    Refused,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from weft.sdk.wire import ERROR_HEADER, REFUSED_HEADER

MAX_DETAIL_LENGTH = 4096
"""Characters of a foreign error's text that an error's detail repeats."""

_RAISED: dict[str, type[MeshError]] = {
    error.code: error
    for error in (
        MeshError,
        InvalidRequest,
        Unauthenticated,
        Denied,
        NotFound,
        NoSuchAgent,
        Conflict,
        Unavailable,
        NoHealthyAgent,
        Refused,
        Interrupted,
        TimedOut,
        LoopDetected,
    )
} | {InvalidResource.code: InvalidRequest}


@dataclass(frozen=True, slots=True)
class Problem:
    """One error as an HTTP answer."""

    status: int
    error: type[MeshError]
    """What the caller's `Mesh` raises."""
    detail: str
    members: Mapping[str, Any] = field(default_factory=dict)
    """Further members of the problem details object."""
    refused: str = ""
    """Why the call was turned away before it began; empty if it was not."""

    def body(self) -> bytes:
        """The problem details object, as JSON on one line."""
        return to_json(
            {
                **self.members,
                "type": PROBLEM_TYPE_PREFIX + self.error.code,
                "title": self.error.title(),
                "status": self.status,
                "detail": self.detail,
            },
            fallback=repr,
        )

    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        headers = {"content-type": PROBLEM_MEDIA_TYPE, ERROR_HEADER: self.error.code}
        if self.refused:
            headers |= {REFUSED_HEADER: self.refused, "retry-after": "1"}
        return headers

    @classmethod
    def of(cls, error: MeshError) -> Problem:
        """A mesh error as it stands."""
        return cls(error.status, type(error), error.detail)


class Rejection(Exception):
    """Ends the handling of a request with `problem` as its answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def read_error(host: str, status: int, headers: Mapping[str, str], body: bytes) -> MeshError:
    """The error that an answer with an error status stands for; `host` is whom the call was addressed to."""
    content = _content(body)
    detail = _detail(content) or f"{host} answered {status}"
    if REFUSED_HEADER in headers:
        return Refused(detail)
    code = headers.get(ERROR_HEADER, AgentFailed.code)
    if code in _RAISED:
        return _RAISED[code](detail)
    return AgentFailed(detail, agent_status=status, body=content)


def read_event_error(host: str, data: str) -> MeshError:
    """The error that the `error` event of a stream stands for."""
    content = _content(data.encode())
    if not isinstance(content, dict):
        return AgentFailed(_detail(content) or f"the stream of {host} failed", body=content)
    code = str(content.get("type", "")).removeprefix(PROBLEM_TYPE_PREFIX)
    status = content.get("status")
    return read_error(host, status if isinstance(status, int) else 500, {ERROR_HEADER: code}, data.encode())


def _content(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        return body.decode(errors="replace")


def _detail(content: Any) -> str:
    if isinstance(content, dict):
        content = content.get("detail") or content.get("title") or content.get("error")
    if isinstance(content, dict):  # OpenAI's format, which calls to models are answered in
        content = content.get("message")
    return content.strip()[:MAX_DETAIL_LENGTH] if isinstance(content, str) else ""
