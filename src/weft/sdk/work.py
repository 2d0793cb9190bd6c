"""An agent's functions as duties: what makes tasks and events their arguments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from weft.errors import AgentFailed, InvalidRequest
from weft.events.filters import EventFilter
from weft.events.subscriber import EventHandler, ReceivedEvent
from weft.model.queue import QueueSpec
from weft.model.topic import TopicSpec
from weft.sdk.context import context_of_message, handling
from weft.sdk.failure import AgentError
from weft.sdk.handler import Handler
from weft.sdk.problem import Rejection
from weft.sdk.spans import HandlerSpans
from weft.sdk.wire import FORWARDED_HEADERS
from weft.tasks.attempt import Runner, TaskRun
from weft.work.duties import TaskDuty
from weft.work.event_duty import EventDuty
from weft.work.spans import processing_event, processing_task

Invoke = Callable[[Handler, Mapping[str, Any], Mapping[type, Any], int], Awaitable[Any]]
"""Calls a handler with its arguments and what it asks for by type, in a thread if it is a plain function; the
number is how many of these there are at most."""


@dataclass(frozen=True, slots=True)
class TaskFunction:
    """A function that does the tasks of a queue."""

    queue: str
    handler: Handler
    concurrency: int | None = None
    """Tasks at once; None: as many as the queue says."""

    def duty(self, invoke: Invoke, spans: HandlerSpans) -> TaskDuty:
        """The same as a duty of a running agent."""

        def runner(spec: QueueSpec) -> Runner:
            concurrency = self.concurrency or spec.concurrency

            async def run(task: TaskRun) -> Any:
                arguments = _arguments(self.handler, task.payload)
                # A submitter can write anything into headers: who calls, above all, they do not say.
                headers = {name: task.headers[name] for name in FORWARDED_HEADERS if name in task.headers}
                with (
                    handling(context_of_message(self.handler.kind, headers, task.deadline)),
                    _failures_told(),
                    spans.processing(processing_task(spans.tracer, task), self.handler.kind),
                ):
                    return await invoke(self.handler, arguments, {TaskRun: task}, concurrency)

            return run

        return TaskDuty(self.queue, runner, self.concurrency)


@dataclass(frozen=True, slots=True)
class EventFunction:
    """A function that takes the events of topics. The fields are those of an EventDuty."""

    topic: str
    handler: Handler
    every_instance: bool = False
    filter: EventFilter | None = None
    concurrency: int = 8
    start: Mapping[str, float] | None = None

    def duty(self, invoke: Invoke, spans: HandlerSpans) -> EventDuty:
        """The same as a duty of a running agent."""

        async def handle(event: ReceivedEvent) -> None:
            with (
                handling(context_of_message(self.handler.kind, event.headers)),
                _failures_told(),
                spans.processing(processing_event(spans.tracer, event), self.handler.kind),
            ):
                await invoke(self.handler, {}, {ReceivedEvent: event}, self.concurrency)

        def handler(_: TopicSpec) -> EventHandler:
            return handle

        return EventDuty(self.topic, handler, self.every_instance, self.filter, self.concurrency, self.start)


@contextmanager
def _failures_told() -> Iterator[None]:
    """Turn an AgentError raised in the block into what says the same to those who are no callers."""
    try:
        yield
    except AgentError as error:
        detail = f"{error.code}: {error.detail}" if error.code else error.detail
        raise AgentFailed(detail, agent_status=error.status) from error


def _arguments(handler: Handler, payload: bytes) -> dict[str, Any]:
    """What a task's payload gives the handler. Raises InvalidRequest, naming each wrong field."""
    try:
        return handler.read_payload(payload)
    except Rejection as rejection:
        raise InvalidRequest(rejection.problem.detail) from rejection
