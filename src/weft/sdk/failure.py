"""How a handler fails: on purpose, through the mesh, or by a bug."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from weft.errors import AgentFailed, LoopDetected, MeshError, TimedOut
from weft.sdk.inheritance import inherited_time
from weft.sdk.problem import Problem, Rejection

logger = logging.getLogger("weft.agent")


class AgentError(Exception):
    """Raise this in a handler to answer the caller with an error of your own.

    The caller's `Mesh` raises `AgentFailed` with `agent_status`, and with `detail`, `code` and what else was
    given in its `body`. `status` is the HTTP status, 400 to 599, by default 500. Other exceptions
    reach the caller as a bare 500, so that nothing of the agent's inside leaks.
    """

    def __init__(self, detail: str, *, status: int = 500, code: str = "", **members: Any) -> None:
        super().__init__(detail)
        if not 400 <= status <= 599:
            raise ValueError(f"the status of an error is 400 to 599, not {status}")
        self.detail = detail
        self.status = status
        self.code = code
        self.members = members


@contextmanager
def failures_answered(kind: str) -> Iterator[None]:
    """Turn whatever a handler of `kind` raises in the block into a Rejection."""
    try:
        yield
    except Rejection:
        raise
    except AgentError as error:
        members = {**error.members, "code": error.code} if error.code else error.members
        raise Rejection(Problem(error.status, AgentFailed, error.detail, members)) from error
    except LoopDetected as error:
        # What is wrong is the tree as a whole, and its beginner has to hear of it.
        raise Rejection(Problem.of(error)) from error
    except TimedOut as error:
        if not _out_of_time():
            raise _failed(kind, error) from error
        # There is no time left for anybody in the tree.
        raise Rejection(Problem.of(error)) from error
    except MeshError as error:
        raise _failed(kind, error) from error
    except Exception as error:  # a handler is the author's own code, and may raise anything
        logger.exception("the handler of %r failed", kind)
        raise Rejection(
            Problem(500, AgentFailed, f"{kind!r} failed unexpectedly; the agent's log says why")
        ) from error


def _failed(kind: str, error: MeshError) -> Rejection:
    """What the failure of a call that a handler made is to the handler's caller.

    Passed on as it is, "no such agent" would read as if the caller had named the wrong one.
    """
    detail = f"{kind!r} failed, because a call it made did: {error.detail}"
    return Rejection(Problem(AgentFailed.status, AgentFailed, detail, {"cause": error.code}))


def _out_of_time() -> bool:
    left = inherited_time()
    return left is not None and left <= 0
