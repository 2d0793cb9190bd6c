"""Everything that can go wrong, as one tree.

MeshError
├── InvalidRequest            400  what was asked for makes no sense
│   └── InvalidResource       422  a declared resource is wrong: file, line and field of every problem
├── Unauthenticated           401  who asks has not proved who it is, or not well enough
├── Denied                    403  who asks is known, and may not
├── NotFound                  404
│   └── NoSuchAgent           404  no agent of that type or capability is known to the mesh
├── Conflict                  409  somebody else was there first (revision, name)
├── Unavailable               503  a part of the mesh cannot be reached: store, control plane, sidecar
│   └── NoHealthyAgent        503  the type is known, but none of its agents can take a call now
├── TooMany                   429  more than is taken for now: try again after `retry_after` seconds
│   ├── QueueFull             429  the queue holds as many tasks as it may
│   └── RateLimited           429  this caller has used up what it may ask for in a time
├── Refused                   503  the agent said no before it began: busy or draining; safe to repeat
├── Interrupted               502  the connection broke midway: the call may or may not have been processed
├── TimedOut                  504  no answer in time: the call may still be running
├── LoopDetected              508  the call tree has passed more agents than it may
└── AgentFailed               502  the agent answered with an error of its own

Every class has a `code`, which travels in the header `x-weft-error` and in the `type` of RFC 9457 problem
details, and a `status`, the HTTP status that goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

PROBLEM_MEDIA_TYPE = "application/problem+json"
PROBLEM_TYPE_PREFIX = "urn:weft:problem:"


class MeshError(Exception):
    """The root: catch this to catch whatever Weft raises on purpose.

    `detail` says what happened, to which thing, and what to do about it.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @classmethod
    def title(cls) -> str:
        """The kind of error in words, the same at every occurrence: "no healthy agent"."""
        return cls.code.replace("-", " ")

    def problem(self) -> dict[str, Any]:
        """This error as an RFC 9457 problem details object."""
        return {
            "type": PROBLEM_TYPE_PREFIX + self.code,
            "title": self.title(),
            "status": self.status,
            "detail": self.detail,
        }


class InvalidRequest(MeshError):
    """What was asked for makes no sense; asking again will not help."""

    code = "invalid-request"
    status = 400


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with one field of a declared resource."""

    message: str
    field: str = ""
    """Path of the field, as in `spec.rules[0].timeout`; empty where the whole document is wrong."""
    file: str = ""
    line: int = 0
    """Counted from 1; 0 where it is not known."""

    def __str__(self) -> str:
        place = ":".join(part for part in (self.file, str(self.line or "")) if part)
        return ": ".join(part for part in (place, self.field, self.message) if part)


class InvalidResource(InvalidRequest):
    """One or more declared resources are wrong; nothing was changed."""

    code = "invalid-resource"
    status = 422

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems

    def problem(self) -> dict[str, Any]:
        errors = [
            {"message": each.message, "field": each.field, "file": each.file, "line": each.line}
            for each in self.problems
        ]
        return {**super().problem(), "errors": errors}


class Unauthenticated(MeshError):
    """Who asks has not proved who it is: no credential, or one that is wrong, expired, revoked or used up."""

    code = "unauthenticated"
    status = 401


class Denied(MeshError):
    """Who asks is known, and may not do this."""

    code = "denied"
    status = 403


class NotFound(MeshError):
    """The thing named does not exist."""

    code = "not-found"
    status = 404


class NoSuchAgent(NotFound):
    """No agent of that type or capability is known to the mesh."""

    code = "no-such-agent"


class Conflict(MeshError):
    """Somebody else was there first: another revision was written, or the name is taken."""

    code = "conflict"
    status = 409


class Unavailable(MeshError):
    """A part of the mesh (store, control plane, sidecar) cannot be reached."""

    code = "unavailable"
    status = 503


class NoHealthyAgent(Unavailable):
    """The type or capability is known, but none of its agents can take a call now."""

    code = "no-healthy-agent"


class TooMany(MeshError):
    """More than is taken for now; nothing was done. `retry_after` is in how many seconds to try again."""

    code = "too-many"
    status = 429

    def __init__(self, detail: str, *, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class QueueFull(TooMany):
    """The queue holds as many tasks as it may."""

    code = "queue-full"


class RateLimited(TooMany):
    """This caller has used up what it may ask for in a time."""

    code = "rate-limited"


class Refused(MeshError):
    """The agent said no before it began (busy, draining): certainly not processed, safe to repeat."""

    code = "refused"
    status = 503


class Interrupted(MeshError):
    """The connection broke midway: the call may or may not have been processed."""

    code = "interrupted"
    status = 502


class TimedOut(MeshError):
    """No answer in time; the call may still be running."""

    code = "timed-out"
    status = 504


class LoopDetected(MeshError):
    """The call tree has passed as many agents as it may: they call each other in a circle, as a rule."""

    code = "loop-detected"
    status = 508


class AgentFailed(MeshError):
    """The agent answered with an error of its own.

    `agent_status` is the HTTP status it answered with; `body` its problem details, or the raw text.
    """

    code = "agent-failed"
    status = 502

    def __init__(self, detail: str, *, agent_status: int = 500, body: Any = None) -> None:
        super().__init__(detail)
        self.agent_status = agent_status
        self.body = body
