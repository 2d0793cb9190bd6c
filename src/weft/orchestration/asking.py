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
from weft.orchestration.durable import work_off
from weft.orchestration.scope import within
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
    task: TaskHandle | None = None


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
    branch = job.branch
    limit = branch.timeout or terms.timeout
    with within(terms.scope, limit, branch.budget):
        left = inherited_time() or 0.0
        timer = asyncio.timeout(left)
        try:
            async with timer:
                answer = await _answer(mesh, job, terms.kind, left, emit)
        except TimeoutError:
            if not timer.expired():
                raise
            return BranchResult(
                branch,
                job.index,
                error=TimedOut(f"{branch.label} did not answer within {max(left, 0):.3g} s"),
            )
        except asyncio.CancelledError:
            if _being_cancelled():
                raise
            gone = Interrupted(f"what {branch.label} waited for was cancelled")
            return BranchResult(branch, job.index, error=gone)
        except AgentError as error:  # as handlers raise it, and functions that could be some
            failed = AgentFailed(error.detail, agent_status=error.status, body=error.members)
            return BranchResult(branch, job.index, error=failed)
        except MeshError as error:
            return BranchResult(branch, job.index, error=error)
    return BranchResult(branch, job.index, answer.value, instance=answer.instance, task=answer.task)


async def _answer(mesh: Mesh, job: Job, kind: str, left: float, emit: Emit) -> _Answer:
    branch = job.branch
    if isinstance(branch.to, str | Instance):
        if branch.to:
            return await _by_agent(mesh, job, branch.to, branch.kind or kind, left, emit)
        return await (_by_task if branch.queue else _by_model)(mesh, job, left, emit)
    value = branch.to(job.asked)
    if inspect.isawaitable(value):
        value = await value
    return _Answer(converted(branch, value))


async def _by_agent(mesh: Mesh, job: Job, to: str | Instance, kind: str, left: float, emit: Emit) -> _Answer:
    branch = job.branch
    arguments = arguments_of(branch, job.asked)
    if branch.stream:
        items = mesh.stream(to, kind, arguments, item_type=branch.result_type, idle_timeout=left)
        return _Answer(await _collected(branch, items, emit), _instance(to))
    value = await mesh.request(
        to,
        kind,
        arguments,
        result_type=branch.result_type,
        timeout=left,
        idempotency_key=branch.idempotency_key or job.idempotency_key,
    )
    return _Answer(value, _instance(to))


async def _by_task(mesh: Mesh, job: Job, left: float, emit: Emit) -> _Answer:
    branch = job.branch
    key = branch.idempotency_key or job.idempotency_key
    done = await work_off(mesh, branch.queue, arguments_of(branch, job.asked), left, key, emit)
    return _Answer(converted(branch, done.value), done.worker, done.task)


async def _by_model(mesh: Mesh, job: Job, left: float, emit: Emit) -> _Answer:
    branch = job.branch
    if branch.stream:
        pieces = models.ask_in_pieces(mesh, branch, text_of(job.asked), left)
        text = "".join(await _collected(branch, pieces, emit))
    else:
        text = await models.ask(mesh, branch, text_of(job.asked), left)
    return _Answer(from_text(branch, text))


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
