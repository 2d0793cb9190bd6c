"""What goes wrong, as A2A says it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InternalError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from weft.errors import InvalidRequest, MeshError, NotFound, TooMany, Unavailable
from weft.sdk.a2a.refusals import NotCancelable, NotWaiting, TaskOver
from weft.sdk.a2a.selection import UnusableContent

logger = logging.getLogger("weft.agent")

_KINDS: tuple[tuple[type[MeshError], type[A2AError]], ...] = (
    (NotCancelable, TaskNotCancelableError),
    (TaskOver, UnsupportedOperationError),
    (NotWaiting, UnsupportedOperationError),
    (NotFound, TaskNotFoundError),
    (UnusableContent, ContentTypeNotSupportedError),
    (InvalidRequest, InvalidParamsError),
    (Unavailable, InternalError),
    (TooMany, InternalError),
)


@contextmanager
def told_by_a2a() -> Iterator[None]:
    """Turn whatever is raised in the block into an A2AError; nothing of the agent's inside is told."""
    try:
        yield
    except A2AError:
        raise
    except MeshError as error:
        for kind, said in _KINDS:
            if isinstance(error, kind):
                raise said(error.detail) from error
        logger.warning("a request by A2A failed: %s", error.detail)
        raise InternalError(f"the agent could not do this: {error.title()}") from error
    except Exception as error:  # whatever it is, callers are told that it failed, and the log why
        logger.exception("a request by A2A failed")
        raise InternalError("the agent failed unexpectedly; its log says why") from error
