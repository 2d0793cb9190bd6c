"""One branch, asked: whichever kind it is, within its time, and its fallback after it."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from weft.errors import AgentFailed, Interrupted, InvalidRequest, MeshError, TimedOut
from weft.model.agent import Instance
from weft.orchestration import models
from weft.orchestration.answers import converted, from_text
from weft.orchestration.branch import Branch, BranchResult, branch_to
from weft.orchestration.durable import Order, work_off
from weft.orchestration.scope import within
from weft.orchestration.spans import branch_span
from weft.sdk.failure import AgentError
from weft.sdk.inheritance import Inheritance, inherited_time
from weft.sdk.mesh import Mesh
from weft.sdk.task_handle import TaskHandle

MAX_ITEMS = 100_000
"""Items of one stream at most."""

_CAPABILITY = ".cap"

Emit = Callable[[Any], Awaitable[None]]
"""Takes what a branch tells before it is done."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all branches of an orchestration."""

    scope: Inheritance
    """What its calls inherit: trace, deadline, budget."""
    kind: str
    timeout: float
    """Seconds that a branch may take which does not say so itself."""


@dataclass(frozen=True, slots=True)
class Job:
    """A branch, and what it is asked."""

    branch: Branch
    index: int
    asked: Any
    idempotency_key: str | None = None
    """If the branch has none itself."""


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any
    instance: str = ""


class _Asked:
    """A branch under way: what is known of it, however it ends."""

    def __init__(self, job: Job, emit: Emit) -> None:
        self.job = job
        self.emit = emit
        self.task: TaskHandle | None = None

    def begun(self, task: TaskHandle) -> None:
        """It is a task, which has been submitted."""
        self.task = task

    def ended(self, answer: _Answer) -> BranchResult:
        """It has succeeded."""
        return BranchResult(
            self.job.branch, self.job.index, answer.value, instance=answer.instance, task=self.task
        )

    def failed(self, error: MeshError) -> BranchResult:
        """It has not."""
        return BranchResult(self.job.branch, self.job.index, error=error, task=self.task)


async def ask(mesh: Mesh, job: Job, terms: Terms, emit: Emit) -> BranchResult:
    """How the branch ended, or if it failed, its fallback. Whatever is no MeshError is a bug, and raised."""
    began = time.monotonic()
    result = await _attempt(mesh, job, terms, emit)
    if result.error is not None and job.branch.fallback is not None:
        other = replace(job, branch=branch_to(job.branch.fallback), idempotency_key=None)
        instead = await ask(mesh, other, terms, emit)
        result = replace(instead, branch=job.branch, replaced=result.error)
    return replace(result, seconds=time.monotonic() - began)


def arguments_of(branch: Branch, asked: Any) -> Mapping[str, Any]:
    """The arguments by which an agent is asked: what is asked, then what the branch adds."""
    if isinstance(asked, BaseModel):
        asked = asked.model_dump(mode="json", by_alias=True)
    arguments: dict[str, Any] = dict(asked) if isinstance(asked, Mapping) else {branch.field: asked}
    if branch.prompt:
        arguments["prompt"] = branch.prompt
    if branch.model:
        arguments |= {
            "model": branch.model,
            "temperature": branch.temperature,
            "max_tokens": branch.max_tokens,
        }
    return {**arguments, **branch.arguments}


def text_of(asked: Any) -> str:
    """What is asked, as a model is told it: a text as it is, all else as JSON. Raises InvalidRequest."""
    if isinstance(asked, str):
        return asked
    try:
        return to_json(asked, by_alias=True, indent=1).decode()
    except PydanticSerializationError as error:
        raise InvalidRequest(f"what a model is asked cannot be written as JSON: {error}") from error


async def _attempt(mesh: Mesh, job: Job, terms: Terms, emit: Emit) -> BranchResult:
    branch, asked = job.branch, _Asked(job, emit)
    limit = branch.timeout or terms.timeout
    with within(terms.scope, limit, branch.budget), branch_span(mesh.tracer, branch) as ended:
        result = await _answered(mesh, asked, terms.kind)
        ended(result)
        return result


async def _answered(mesh: Mesh, asked: _Asked, kind: str) -> BranchResult:
    """What came of a branch, within the time that its calls have."""
    left = inherited_time() or 0.0
    timer = asyncio.timeout(left)
    try:
        async with timer:
            return asked.ended(await _answer(mesh, asked, kind, left))
    except TimeoutError:
        if not timer.expired():
            raise
        return asked.failed(TimedOut(f"{asked.job.branch.label} did not answer within {max(left, 0):.3g} s"))
    except asyncio.CancelledError:
        if _being_cancelled():
            raise
        return asked.failed(Interrupted(f"what {asked.job.branch.label} waited for was cancelled"))
    except AgentError as error:  # as handlers raise it, and functions that could be some
        return asked.failed(AgentFailed(error.detail, agent_status=error.status, body=error.members))
    except MeshError as error:
        return asked.failed(error)


async def _answer(mesh: Mesh, asked: _Asked, kind: str, left: float) -> _Answer:
    branch = asked.job.branch
    if isinstance(branch.to, str | Instance):
        if branch.to:
            return await _by_agent(mesh, asked, branch.to, branch.kind or kind, left)
        return await (_by_task if branch.queue else _by_model)(mesh, asked, left)
    value = branch.to(asked.job.asked)
    if inspect.isawaitable(value):
        value = await value
    return _Answer(converted(branch, value))


async def _by_agent(mesh: Mesh, asked: _Asked, to: str | Instance, kind: str, left: float) -> _Answer:
    job, branch = asked.job, asked.job.branch
    arguments = arguments_of(branch, job.asked)
    if branch.stream:
        items = mesh.stream(to, kind, arguments, item_type=branch.result_type, idle_timeout=left)
        return _Answer(await _collected(branch, items, asked.emit), _instance(to))
    value = await mesh.request(
        to,
        kind,
        arguments,
        result_type=branch.result_type,
        timeout=left,
        idempotency_key=branch.idempotency_key or job.idempotency_key,
    )
    return _Answer(value, _instance(to))


async def _by_task(mesh: Mesh, asked: _Asked, left: float) -> _Answer:
    job, branch = asked.job, asked.job.branch
    order = Order(
        branch.queue,
        arguments_of(branch, job.asked),
        left,
        branch.idempotency_key or job.idempotency_key,
    )
    done = await work_off(mesh, order, begun=asked.begun, emit=asked.emit)
    return _Answer(converted(branch, done.value), done.worker)


async def _by_model(mesh: Mesh, asked: _Asked, left: float) -> _Answer:
    branch, text = asked.job.branch, text_of(asked.job.asked)
    if not branch.stream:
        return _Answer(from_text(branch, await models.ask(mesh, branch, text, left)))
    pieces = models.ask_in_pieces(mesh, branch, text, left)
    return _Answer(from_text(branch, "".join(await _collected(branch, pieces, asked.emit))))


async def _collected(branch: Branch, items: AsyncGenerator[Any, None], emit: Emit) -> list[Any]:
    found: list[Any] = []
    async with aclosing(items):
        async for item in items:
            if len(found) >= MAX_ITEMS:
                raise AgentFailed(f"the stream of {branch.label} has more than {MAX_ITEMS} items")
            found.append(item)
            await emit(item)
    return found


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _instance(to: str | Instance) -> str:
    """The instance that is meant, if one is."""
    if isinstance(to, Instance):
        return f"{to.id}.{to.type}"
    return to if "." in to and not to.endswith(_CAPABILITY) else ""
