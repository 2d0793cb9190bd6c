"""Submitting tasks for callers of a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from weft.errors import Denied, InvalidRequest, Unavailable
from weft.gateway.caller import Caller, Outsider
from weft.gateway.conversation import CONTEXT_HEADER, outside_context
from weft.gateway.parts import Gateway
from weft.gateway.submission import TaskSubmission
from weft.gateway.webhook_address import parse_receiver, permitted_addresses
from weft.model.task import Task
from weft.work.spans import submitting

IDEMPOTENCY_HEADER = "idempotency-key"

LOOKUP_TIMEOUT = 2.0
"""Seconds that a submission waits to learn where its webhook's host is; it is looked up again at sending."""

PASSED_ON = ("traceparent", "tracestate", "baggage", CONTEXT_HEADER)
"""Headers of a submission that reach the worker."""

MAX_PASSED_ON = 1024
"""Characters of each; longer ones, and what is not printable ASCII, are left out."""


@dataclass(frozen=True, slots=True)
class Submitter:
    """Puts the tasks of one request into queues."""

    gateway: Gateway
    caller: Caller
    headers: Mapping[str, str]
    """Of the request."""

    async def submit(self, wanted: TaskSubmission, item: int | None = None) -> Task:
        """Submit one task; `item` is its place in a batch.

        Raises what `TaskClient.submit` does, and Denied and NotFound where the caller may not.
        """
        await self.gateway.rights.check_submit(self.caller, wanted.queue)
        if wanted.webhook is not None:
            await self._check_webhook(wanted.webhook)
        parts, passed = self.gateway.parts, passed_on(self.headers, self.caller)
        with submitting(parts.tracer, wanted.queue, passed) as (span, headers):
            submitted = await parts.tasks.submit(
                wanted.queue,
                wanted.payload,
                priority=wanted.priority,
                delay=wanted.delay,
                not_before=wanted.not_before.timestamp() if wanted.not_before else None,
                deadline=wanted.deadline.timestamp() if wanted.deadline else None,
                idempotency_key=self._idempotency_key(wanted, item),
                result_ttl=wanted.result_ttl,
                webhook=wanted.webhook or "",
                headers=headers,
                labels=wanted.labels,
                submitter=self.caller.submitter,
            )
            if span is not None:
                span.set("weft.task", submitted.task.id)
        return submitted.task

    async def _check_webhook(self, url: str) -> None:
        if isinstance(self.caller, Outsider) and self.caller.anonymous:
            raise Denied("webhooks are for callers with a key or token: nobody else could verify them")
        rules = self.gateway.parts.spec().webhooks
        receiver = parse_receiver(url, rules)
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                await permitted_addresses(receiver, rules, self.gateway.parts.lookup)
        except (TimeoutError, Unavailable):
            return  # it may be there by the time the task has ended, and is checked again then

    def _idempotency_key(self, wanted: TaskSubmission, item: int | None) -> str | None:
        given = self.headers.get(IDEMPOTENCY_HEADER)
        if given is None:
            return wanted.idempotency_key
        if item is not None:
            # The header speaks of the batch as a whole: each of its tasks needs a key of its own.
            return wanted.idempotency_key or f"{given}#{item}"
        if wanted.idempotency_key not in {None, given}:
            raise InvalidRequest(f"idempotencyKey and the header {IDEMPOTENCY_HEADER} differ: send one")
        return given


def passed_on(headers: Mapping[str, str], caller: Caller) -> dict[str, str]:
    """Those headers of a request that go on with what it sends: its trace, and its conversation."""
    found = {
        name: value
        for name in PASSED_ON
        if (value := headers.get(name)) and len(value) <= MAX_PASSED_ON and _is_plain(value)
    }
    if CONTEXT_HEADER in found:
        found[CONTEXT_HEADER] = outside_context(caller, found[CONTEXT_HEADER])
    return found


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable()
