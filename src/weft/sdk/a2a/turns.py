"""The work on turns: what an instance does with a message from its agent's inbox. Without a2a-sdk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from weft.errors import InvalidRequest, Unavailable
from weft.model.inbox import inbox_queue
from weft.model.queue import QueueSpec
from weft.sdk.a2a.outcome import Outcome
from weft.sdk.a2a.selection import arguments_for, conversation_of
from weft.sdk.a2a.story import PARTS, WORKING
from weft.sdk.a2a.wire import USER, Json, State, parts_of
from weft.sdk.context import Context, handling
from weft.sdk.conversation import Conversation, InputRequired
from weft.sdk.failure import failures_answered
from weft.sdk.handler import Handler
from weft.sdk.problem import Rejection
from weft.sdk.spans import HandlerSpans
from weft.sdk.wire import CALLER_HEADER, FORWARDED_HEADERS
from weft.tasks.attempt import Runner, TaskRun
from weft.tasks.json_value import MAX_JSON_BYTES, json_value
from weft.tracing.span import Value
from weft.work.duties import TaskDuty

logger = logging.getLogger("weft.agent")

GATHERED_ITEMS = 256
"""Items of a stream that wait, at most, while those before them are written down."""

GATHERED_BYTES = 64 * 1024
"""What of them goes together, at most, but for the last of them."""

MAX_PARTS_BYTES = MAX_JSON_BYTES - GATHERED_BYTES - 1024
"""The most that a result, or one item of a stream, may have as JSON."""

Call = Callable[[Handler, Mapping[str, Any], Mapping[type, Any]], Awaitable[Any]]
"""Calls a handler that gives one result, with its arguments and what it asks for by type."""

Stream = Callable[[Handler, Mapping[str, Any], Mapping[type, Any]], AsyncGenerator[Any, None]]
"""Calls one that gives a stream of items."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a turn's task carries."""

    task_id: str
    """A2A's."""
    context_id: str
    skill: str
    caller: str
    messages: list[Json]


@dataclass(frozen=True, slots=True)
class Turns:
    """Works on turns by an agent's handlers."""

    agent_type: str
    handlers: Mapping[str, Handler]
    call: Call
    stream: Stream
    concurrency: int
    """Turns at once."""
    begun: Callable[[str], None]
    """Is told the id of each A2A task whose turn begins here."""
    spans: HandlerSpans

    def duty(self) -> TaskDuty:
        """The same as a duty of a running agent."""

        def runner(_: QueueSpec) -> Runner:
            return self._run

        return TaskDuty(inbox_queue(self.agent_type), runner, self.concurrency)

    async def _run(self, run: TaskRun) -> Json:
        message = _message_in(run.payload)
        await run.partial({WORKING: True})
        self.begun(message.task_id)
        outcome = await self._outcome(run, message)
        try:
            result: Json = _written(outcome.result())
        except InvalidRequest as error:
            return Outcome(State.FAILED, text=error.detail).result()
        return result

    async def _outcome(self, run: TaskRun, message: Message) -> Outcome:
        handler = self.handlers.get(message.skill)
        if handler is None:
            return Outcome(State.FAILED, text=f"this instance knows no skill {message.skill!r} any more")
        headers = {name: run.headers[name] for name in FORWARDED_HEADERS if name in run.headers}
        if message.caller:  # the inbox takes messages of this agent's own instances only, which were told it
            headers[CALLER_HEADER] = message.caller
        context = Context(handler.kind, headers, run.deadline)
        try:
            asked = [each for each in message.messages if each["role"] == USER]
            arguments = arguments_for(handler, asked)
            with (
                handling(context),
                failures_answered(handler.kind),
                self.spans.invoked(context, arguments, **_about(run, message)) as invocation,
            ):
                outcome = await self._answer(run, handler, arguments, message)
                if invocation.records:
                    invocation.answered(outcome.result())
                return outcome
        except InvalidRequest as error:
            return Outcome(State.FAILED, text=error.detail)
        except Rejection as rejection:
            return Outcome(State.FAILED, text=rejection.problem.detail)

    async def _answer(
        self, run: TaskRun, handler: Handler, arguments: Mapping[str, Any], message: Message
    ) -> Outcome:
        conversation = conversation_of(message.messages, message.context_id, message.task_id)
        at_hand: dict[type, Any] = {Conversation: conversation}
        try:
            if not handler.streams:
                return Outcome(State.COMPLETED, _parts(await self.call(handler, arguments, at_hand)))
            async with aclosing(self.stream(handler, arguments, at_hand)) as items:
                await _tell(run, items)
            return Outcome(State.COMPLETED)
        except InputRequired as question:
            return Outcome(State.INPUT_REQUIRED, text=question.detail)


def _about(run: TaskRun, message: Message) -> dict[str, Value]:
    return {
        "weft.task": message.task_id,
        "weft.attempt": run.attempt,
        "gen_ai.conversation.id": message.context_id,
    }


async def _tell(run: TaskRun, items: AsyncGenerator[Any, None]) -> None:
    """Write down the items of a stream as they come; those that come meanwhile go together."""
    waiting: asyncio.Queue[list[Json] | None] = asyncio.Queue(GATHERED_ITEMS)

    async def take() -> None:
        try:
            async for item in items:
                await waiting.put(_parts(item))
        finally:
            await waiting.put(None)

    taking = asyncio.ensure_future(take())
    try:
        append = False
        while (parts := await waiting.get()) is not None:
            over = _gather(parts, waiting)
            if parts:
                await _tell_parts(run, parts, append=append)
                append = True
            if over:
                break
        await taking
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


def _gather(parts: list[Json], waiting: asyncio.Queue[list[Json] | None]) -> bool:
    """Add what waits to `parts`, as far as one event holds it; whether that was the end."""
    size = len(to_json(parts))
    while not waiting.empty() and size < GATHERED_BYTES:
        more = waiting.get_nowait()
        if more is None:
            return True
        size += len(to_json(more))
        parts += more
    return False


async def _tell_parts(run: TaskRun, parts: list[Json], *, append: bool) -> None:
    while True:
        try:
            await run.partial({PARTS: parts, "append": append})
        except Unavailable as error:
            logger.warning("a piece of the result of task %r waits: %s", run.task.id, error.detail)
            await asyncio.sleep(1.0)
        else:
            return


def _parts(value: Any) -> list[Json]:
    """The parts of a result or item. Raises InvalidRequest for what cannot be one."""
    try:
        return list(_written(parts_of(value)))
    except ValueError as error:
        raise InvalidRequest("the result cannot be written as JSON") from error


def _written(value: Any) -> Any:
    return json_value(value, "the result", limit=MAX_PARTS_BYTES)


def _message_in(payload: bytes) -> Message:
    """What a turn's task carries. Raises InvalidRequest."""
    try:
        fields = from_json(payload)
        return Message(
            str(fields["id"]),
            str(fields["context"]),
            str(fields["skill"]),
            str(fields["caller"]),
            list(fields["messages"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequest("a task in the inbox of an agent is put there by the agent itself") from error
