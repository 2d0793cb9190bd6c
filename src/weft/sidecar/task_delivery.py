"""Tasks for an agent that does not use the SDK: each is a POST to its `/tasks`.

The body is the payload, with its content type. Beside the headers of the submitter there are:

| header | what |
|---|---|
| `x-weft-task` | the task's id |
| `x-weft-attempt` | which attempt this is, counted from 1 |
| `x-weft-deadline` | when it must be done, in milliseconds since 1970; missing if there is no limit |
| `x-weft-lease` | URL of the lease: see `weft.sidecar.lease_server` |
| `x-weft-lease-seconds` | how often an agent that works on in the background must extend it |

| answer | attempt |
|---|---|
| 200 with JSON or text | succeeded with that result; any other 2xx without a body: with null |
| 202 | goes on: the agent extends the lease, and ends it by `complete` or `fail` |
| 429, 503 with Retry-After, or with x-weft-refused; no connection | did not begin, and is not counted |
| 408, 425, 429, 5xx and whatever else | failed, and is tried again |
| other 4xx | failed for good |

While the answer is awaited nothing needs to be extended. When the task is cancelled, or is too late, the
connection is closed, and the lease is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from weft.errors import InvalidRequest, Refused, TooMany
from weft.events.json_format import is_json, parse_json
from weft.sidecar.agent_answers import failure
from weft.sidecar.agent_client import AgentAnswer, AgentClient
from weft.sidecar.lease import Lease
from weft.sidecar.lease_server import LeaseServer
from weft.tasks.attempt import TaskRun
from weft.tracing.span import Span
from weft.tracing.tracer import NO_TRACER, Tracer
from weft.work.spans import below, processing_task

TASKS_PATH = "/tasks"
TASK_HEADER = "x-weft-task"
ATTEMPT_HEADER = "x-weft-attempt"
DEADLINE_HEADER = "x-weft-deadline"
LEASE_HEADER = "x-weft-lease"
LEASE_SECONDS_HEADER = "x-weft-lease-seconds"

MAX_RESULT_BYTES = 900 * 1024
"""A larger result is refused."""

ANSWER_PATIENCE = 5.0
"""Seconds that the POST may still be pending once the lease was completed."""

_ACCEPTED = 202
_RETRIED = frozenset({408, 425, 429})
_PASSED_ON = frozenset({"x-weft-context", "x-weft-budget", "x-weft-hops"})
_HTTPS_OWN = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "expect", "upgrade"}
)


class TaskDelivery:
    """Posts tasks to an agent: the Runner of a Worker."""

    def __init__(
        self,
        agent: AgentClient,
        leases: LeaseServer,
        *,
        lease_seconds: float,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """`lease_seconds`: the queue's visibility timeout, as a rule. `tracer` records each attempt."""
        self._agent = agent
        self._leases = leases
        self._lease_seconds = lease_seconds
        self._tracer = tracer

    async def __call__(self, run: TaskRun) -> Any:
        """Have the agent do one task; return its result. Raises what stands for its answer."""
        lease = Lease(run, self._lease_seconds)
        with processing_task(self._tracer, run) as span, self._leases.opened(lease) as url:
            answer = await self._posted(run, lease, self._headers(run, url, span))
            if lease.ended or answer is None or answer.status == _ACCEPTED:
                return await lease.outcome()
            return _result(answer)

    async def _posted(self, run: TaskRun, lease: Lease, headers: Mapping[str, str]) -> AgentAnswer | None:
        """The answer; None if the agent has ended the lease and is not likely to answer."""
        post = asyncio.ensure_future(
            self._agent.post(TASKS_PATH, headers, run.payload, max_body=MAX_RESULT_BYTES, timeout=None)
        )
        decision = asyncio.ensure_future(lease.decided())
        try:
            await asyncio.wait({post, decision}, return_when=asyncio.FIRST_COMPLETED)
            if not post.done():
                await asyncio.wait({post}, timeout=ANSWER_PATIENCE)
            if lease.ended:
                return None
            return post.result()
        finally:
            await _ended(post, decision)

    def _headers(self, run: TaskRun, url: str, span: Span | None) -> dict[str, str]:
        submitted = below(span, run.headers)
        passed = {name: value.strip() for name, value in submitted.items() if _is_passed_on(name)}
        own = {
            "content-type": run.content_type,
            TASK_HEADER: run.task.id,
            ATTEMPT_HEADER: str(run.attempt),
            LEASE_HEADER: url,
            LEASE_SECONDS_HEADER: f"{self._lease_seconds:g}",
        }
        if run.deadline is not None:
            own[DEADLINE_HEADER] = str(int(run.deadline * 1000))
        return {**passed, **own}


def _is_passed_on(name: str) -> bool:
    """Whether a submitter's header may reach the agent: those that agents believe are the mesh's to set."""
    return name in _PASSED_ON or not (name in _HTTPS_OWN or name.startswith(("x-weft-", "x-envoy-")))


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    for each in tasks:
        each.cancel()
    await asyncio.wait(tasks)
    for each in tasks:
        if not each.cancelled():
            each.exception()  # heard: asyncio need not log it


def _result(answer: AgentAnswer) -> Any:
    """The result in an answer. Raises what an answer other than 2xx stands for."""
    what = f"POST {TASKS_PATH}"
    if not answer.ok:
        error = failure(answer, what, retried=_RETRIED)
        raise Refused(error.detail) if isinstance(error, TooMany) else error
    if answer.truncated:
        raise InvalidRequest(
            f"{what}: the result is larger than {MAX_RESULT_BYTES} bytes: put it elsewhere, and return "
            "its address"
        )
    if not answer.body:
        return None
    media_type = answer.headers.get("content-type", "")
    if is_json(media_type):
        return parse_json(answer.body, f"{what}: the result")
    if media_type.lower().startswith("text/"):
        return answer.body.decode(errors="replace")
    raise InvalidRequest(f"{what}: the result is of type {media_type[:64]!r}; answer with JSON")
