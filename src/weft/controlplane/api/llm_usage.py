"""What was used of models, over HTTP: by day and by whom, as JSON or CSV."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import AfterValidator

from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import CurrentStanding
from weft.controlplane.api.usage_csv import usage_csv
from weft.controlplane.llm.usage_record import UsageField, UsageRow
from weft.errors import InvalidRequest
from weft.model.context_keys import MAX_ID_LENGTH
from weft.model.operator import Scope

router = APIRouter(prefix="/v1/llm", tags=["models"], dependencies=[Depends(requires(Scope.VIEWER))])

MAX_DAYS = 400
"""Of which usage is told at once; it is kept for no more."""

MAX_ROWS = 50_000
"""Rows of usage in one answer."""

DEFAULT_DAYS = 7
"""Of which usage is told if nobody says of how many."""


class UsageOut(Body):
    """What was used; of what it is not told apart by it says nothing (null)."""

    day: str | None
    """In UTC."""
    tenant: str | None
    agent: str | None
    """Type of the agent that called."""
    model: str | None
    pool: str | None
    provider: str | None
    """Empty: nobody was reached."""
    context: str | None
    """Empty: the calls named none."""
    calls: int
    failed: int
    """Calls that got an error, or an answer that broke off."""
    cancelled: int
    """Calls whose client left before the end."""
    estimated: int
    """Calls whose answer did not say what it used: their tokens are estimated."""
    prompt_tokens: int
    cached_tokens: int
    """Of those of the prompts."""
    completion_tokens: int
    estimated_tokens: int
    """Of prompts and answers together, where the answer did not say."""
    tokens: int
    """All of them: of prompts, of answers, and estimated."""
    usd: float
    """By the prices of the providers, at the time."""


class UsageList(Body):
    """Usage, sorted by what it is told apart by."""

    since: date
    until: date
    """The last day that is counted."""
    items: list[UsageOut]


class Format(StrEnum):
    """The form of an answer."""

    JSON = "json"
    CSV = "csv"


def _fields(text: str) -> str:
    known = {each.value for each in UsageField}
    names = text.split(",")
    if not set(names) <= known or len(set(names)) < len(names):
        raise ValueError(f"{text!r} must be some of {', '.join(UsageField)}, each once, with commas between")
    return text


By = Annotated[str, Query(max_length=100), AfterValidator(_fields)]
Day = Annotated[date, Query(ge=date(2000, 1, 1), le=date(9000, 1, 1))]


@router.get(
    "/usage",
    response_model=UsageList,
    responses={200: {"content": {"text/csv": {}}, "description": "JSON, or CSV with a line of names."}},
)
async def usage(
    standing: CurrentStanding,
    by: By = "day,tenant,model",
    since: Day | None = None,
    until: Day | None = None,
    context: Annotated[str | None, Query(max_length=MAX_ID_LENGTH)] = None,
    format: Format = Format.JSON,  # noqa: A002 -- as the query calls it
) -> UsageList | Response:
    """What was used from `since` to `until`: days in UTC, both included, by default the last seven.

    It is told apart `by` some of day, tenant, agent, model, pool, provider and context. With `context` only
    what that conversation used: then `by` has to have context.
    """
    last = until or datetime.fromtimestamp(time.time(), UTC).date()
    first = since or last - timedelta(days=DEFAULT_DAYS - 1)
    if not 0 <= (last - first).days < MAX_DAYS:
        raise InvalidRequest(
            f"ask for 1 to {MAX_DAYS} days: from {first} to {last} it is {(last - first).days + 1}"
        )
    fields = [UsageField(each) for each in by.split(",")]
    if context is not None and UsageField.CONTEXT not in fields:
        raise InvalidRequest("what one conversation used is told apart by context: ask with by=context")
    rows = await standing.usage(first, last, fields)
    if context is not None:
        rows = [each for each in rows if each.of.context == context]
    if len(rows) > MAX_ROWS:
        raise InvalidRequest(
            f"the answer would have {len(rows)} rows, more than {MAX_ROWS}: ask for fewer days, or leave out "
            "what it is told apart by"
        )
    if format is Format.CSV:
        return Response(usage_csv(rows, fields), media_type="text/csv")
    return UsageList(since=first, until=last, items=[_usage(each, fields) for each in rows])


def _usage(row: UsageRow, fields: list[UsageField]) -> UsageOut:
    counts = row.counts
    told = {each.value: getattr(row.of, each) if each in fields else None for each in UsageField}
    return UsageOut(
        **told,
        calls=counts.calls,
        failed=counts.failed,
        cancelled=counts.cancelled,
        estimated=counts.estimated,
        prompt_tokens=counts.prompt_tokens,
        cached_tokens=counts.cached_tokens,
        completion_tokens=counts.completion_tokens,
        estimated_tokens=counts.estimated_tokens,
        tokens=counts.tokens,
        usd=counts.usd,
    )
