"""Who calls by A2A, and whose task that makes it. Pure, and without a2a-sdk."""

from __future__ import annotations

from collections.abc import Mapping

from weft.sdk.a2a.book import Caller
from weft.sdk.context import read_context
from weft.sdk.wire import CALLER_HEADER, FORWARDED_HEADERS

SUBMITTER_HEADER = "x-weft-submitter"
"""Who calls at a gateway, as the gateway says. Who else sends it tells its own callers apart."""

ANONYMOUS = "anonymous"
"""Who calls, where no Envoy says it."""


def caller_of(headers: Mapping[str, str], tenant: str, *, waits: bool = True) -> Caller:
    """The caller that the headers of a request tell of, in A2A's `tenant`.

    Whether it waits for the end: if not, its deadline is none of the task's. Raises InvalidRequest.
    """
    context = read_context("a2a", headers)
    name, submitter = headers.get(CALLER_HEADER, ""), headers.get(SUBMITTER_HEADER, "")
    return Caller(
        owner="\n".join((_principal(name), submitter, tenant)),
        name=name,
        submitter=submitter,
        headers={each: context.headers[each] for each in FORWARDED_HEADERS if each in context.headers},
        deadline=context.deadline if waits else None,
        repetition=context.idempotency_key or "",
    )


def _principal(name: str) -> str:
    """An agent's type, or an operator: whichever of its instances asks, the tasks are the same."""
    return name.rpartition("/")[0] or name or ANONYMOUS
