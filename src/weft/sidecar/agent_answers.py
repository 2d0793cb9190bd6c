"""What an agent's answer to an event or a task means, where both are alike."""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime

from weft.errors import AgentFailed, InvalidRequest, MeshError, Refused, TooMany
from weft.sidecar.agent_client import AgentAnswer

REFUSED_HEADER = "x-weft-refused"
"""In the answer of an agent that said no before it began."""

MAX_EXCERPT = 200
"""Characters of an answer that go into an error."""

_MAX_RETRY_AFTER = 24 * 3600.0
_LATER = frozenset({429, 503})


def failure(answer: AgentAnswer, what: str, *, retried: frozenset[int]) -> MeshError:
    """The error that an answer other than 2xx stands for.

    TooMany for 429 and 503 with Retry-After; Refused where the agent says it did not begin; InvalidRequest
    for 4xx, which will not do better another time, but for those in `retried`; else AgentFailed.
    """
    detail = f"{what}: the agent answered {answer.status}{_excerpt(answer)}"
    pause = retry_after(answer.headers.get("retry-after", ""))
    if answer.status in _LATER and pause is not None:
        return TooMany(detail, retry_after=pause)
    if REFUSED_HEADER in answer.headers:
        return Refused(detail)
    if 400 <= answer.status < 500 and answer.status not in retried:
        return InvalidRequest(detail)
    return AgentFailed(detail, agent_status=answer.status)


def retry_after(value: str) -> float | None:
    """The seconds that a Retry-After header asks for, a day at most; None if it says nothing."""
    if value.isascii() and value.isdecimal():
        return min(float(value), _MAX_RETRY_AFTER)
    try:
        pause = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(pause, 0.0), _MAX_RETRY_AFTER)


def _excerpt(answer: AgentAnswer) -> str:
    """What the answer says of the reason: the detail of problem details, else how it begins."""
    text = answer.body[: 8 * MAX_EXCERPT].decode(errors="replace")
    try:
        document = json.loads(answer.body)
        detail = document.get("detail") if isinstance(document, dict) else None
        text = detail if isinstance(detail, str) else text
    except (ValueError, RecursionError):
        pass  # no JSON
    shown = "".join(each if each.isprintable() else " " for each in text[:MAX_EXCERPT]).strip()
    return f": {shown}" if shown else ""
