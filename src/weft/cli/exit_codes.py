"""What the exit code of `weft` says.

`weft run` and `weft sidecar` end with the exit code of the program they ran; `weft diff` with 1 where
something differs.
"""

from __future__ import annotations

from enum import IntEnum

from weft.errors import (
    Conflict,
    Denied,
    Interrupted,
    InvalidRequest,
    MeshError,
    NoHealthyAgent,
    NotFound,
    Refused,
    TimedOut,
    Unauthenticated,
    Unavailable,
)


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    """What was asked for did not work: an agent answered with an error, the mesh did not start."""
    USAGE = 2
    """What was asked for makes no sense: a wrong option, an invalid manifest."""
    UNREACHABLE = 3
    """No mesh is running, or the control plane cannot be reached."""
    NOT_FOUND = 4
    """The resource, agent or instance does not exist."""
    CONFLICT = 5
    """Somebody was there first: a mesh runs already, a resource was changed meanwhile."""
    NO_HEALTHY_AGENT = 6
    """The agents exist, but none can take the call now."""
    UNKNOWN_OUTCOME = 7
    """No answer in time, or the connection broke: the call may have been processed."""
    NOT_ALLOWED = 8
    """No token, one that is not good any more, or one whose scope does not allow this."""
    CANCELLED = 9
    """The task that was waited for was cancelled."""
    INTERRUPTED = 130
    """Ctrl-C."""


# The first class that fits counts: special ones come before those they derive from.
_CODES: tuple[tuple[type[MeshError], ExitCode], ...] = (
    (InvalidRequest, ExitCode.USAGE),
    (Unauthenticated, ExitCode.NOT_ALLOWED),
    (Denied, ExitCode.NOT_ALLOWED),
    (NotFound, ExitCode.NOT_FOUND),
    (Conflict, ExitCode.CONFLICT),
    (NoHealthyAgent, ExitCode.NO_HEALTHY_AGENT),
    (Refused, ExitCode.NO_HEALTHY_AGENT),
    (Unavailable, ExitCode.UNREACHABLE),
    (TimedOut, ExitCode.UNKNOWN_OUTCOME),
    (Interrupted, ExitCode.UNKNOWN_OUTCOME),
)


def exit_code(error: MeshError) -> ExitCode:
    """The exit code that tells of `error`."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)
