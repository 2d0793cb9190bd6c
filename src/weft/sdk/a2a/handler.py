"""A2A's operations, over the tasks that the mesh keeps: what a2a-sdk's routes call."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler, validate_request_params
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError, UnsupportedOperationError
from a2a.utils.task import apply_history_length, validate_history_length
from google.protobuf.json_format import MessageToDict, ParseDict

from weft.sdk.a2a.book import Caller, TaskBook
from weft.sdk.a2a.callers import caller_of
from weft.sdk.a2a.door import A2aDoor
from weft.sdk.a2a.errors import told_by_a2a
from weft.sdk.a2a.listing import listed
from weft.sdk.a2a.push import check_config
from weft.sdk.a2a.record import TaskRecord
from weft.sdk.a2a.selection import arguments_for, skill_for, wish_of
from weft.sdk.a2a.story import Snapshot, events, opening, snapshot
from weft.sdk.a2a.wire import USER, Json

Event = a2a.Task | a2a.TaskStatusUpdateEvent | a2a.TaskArtifactUpdateEvent

LONGEST_WAIT = 86400.0
"""Seconds that a request waits for its task, if its caller does."""


class WeftRequestHandler(RequestHandler):
    """Every operation of A2A 1.0 but the extended card; those of 0.3 come here translated."""

    def __init__(self, door: A2aDoor) -> None:
        self._door = door
        self._agent = door.agent

    @validate_request_params
    async def on_message_send(self, params: a2a.SendMessageRequest, context: ServerCallContext) -> a2a.Task:
        """Begin a task, or go on with one; answered once it rests, unless the caller does not wait."""
        with told_by_a2a():
            validate_history_length(params.configuration)
            book = await self._door.book()
            record = await self._sent(book, params, context)
            if params.configuration.return_immediately:
                begun = await opening(book, record)
            else:
                work = await book.tasks.wait(record.last.task, LONGEST_WAIT)
                begun = await snapshot(book, record, work)
            return apply_history_length(_task(begun.task), params.configuration)

    @validate_request_params
    async def on_message_send_stream(
        self, params: a2a.SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """The same; the task as it stands is followed by its events, until it rests."""
        with told_by_a2a():
            validate_history_length(params.configuration)
            book = await self._door.book()
            record = await self._sent(book, params, context)
            begun = await opening(book, record)
            yield apply_history_length(_task(begun.task), params.configuration)
            async with aclosing(_followed(book, begun, through_rests=False)) as updates:
                async for each in updates:
                    yield each

    @validate_request_params
    async def on_subscribe_to_task(
        self, params: a2a.SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """The task as it stands, then its events until it has ended; also those of turns to come."""
        with told_by_a2a():
            book = await self._door.book()
            begun = await self._found(book, params.id, context)
            if begun.state.terminal:
                raise UnsupportedOperationError(f"task {params.id!r} has ended: nothing more happens to it")
            yield _task(begun.task)
            async with aclosing(_followed(book, begun, through_rests=True)) as updates:
                async for each in updates:
                    yield each

    @validate_request_params
    async def on_get_task(self, params: a2a.GetTaskRequest, context: ServerCallContext) -> a2a.Task:
        """A task as it stands."""
        with told_by_a2a():
            validate_history_length(params)
            found = await self._found(await self._door.book(), params.id, context)
            return apply_history_length(_task(found.task), params)

    async def on_list_tasks(
        self, params: a2a.ListTasksRequest, context: ServerCallContext
    ) -> a2a.ListTasksResponse:
        """The caller's tasks, those that changed last first."""
        with told_by_a2a():
            book = await self._door.book()
            return await listed(book, _caller(context).owner, params)

    @validate_request_params
    async def on_cancel_task(self, params: a2a.CancelTaskRequest, context: ServerCallContext) -> a2a.Task:
        """Cancel a task: the work on it is interrupted, wherever it runs."""
        with told_by_a2a():
            book = await self._door.book()
            record = await book.cancel(params.id, _caller(context).owner)
            return _task((await snapshot(book, record)).task)

    @validate_request_params
    async def on_create_task_push_notification_config(
        self, params: a2a.TaskPushNotificationConfig, context: ServerCallContext
    ) -> a2a.TaskPushNotificationConfig:
        """Have an address told of what happens to a task from now on."""
        with told_by_a2a():
            book = await self._door.book()
            caller = _caller(context)
            config = _config(params, caller)
            record = await book.add_push(params.task_id, caller.owner, config)
            work = await book.turn_task(record, record.last)
            if work.attempts and not work.state.terminal:  # who works on it has looked already
                self._door.pushes.begin(record.id, only={config["id"]})
            return _config_message(config, record.id)

    @validate_request_params
    async def on_get_task_push_notification_config(
        self, params: a2a.GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> a2a.TaskPushNotificationConfig:
        """One address of a task."""
        with told_by_a2a():
            for each in (await self._record(params.task_id, context)).pushes:
                if each["id"] == params.id:
                    return _config_message(each, params.task_id)
            raise TaskNotFoundError(f"task {params.task_id!r} has no such push notification config")

    async def on_list_task_push_notification_configs(
        self, params: a2a.ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> a2a.ListTaskPushNotificationConfigsResponse:
        """All addresses of a task: there are few, so they are one page."""
        with told_by_a2a():
            record = await self._record(params.task_id, context)
            configs = [_config_message(each, record.id) for each in record.pushes]
            return a2a.ListTaskPushNotificationConfigsResponse(configs=configs)

    @validate_request_params
    async def on_delete_task_push_notification_config(
        self, params: a2a.DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """Have an address told nothing any more."""
        with told_by_a2a():
            book = await self._door.book()
            await book.remove_push(params.task_id, _caller(context).owner, params.id)

    async def on_get_extended_agent_card(
        self,
        params: a2a.GetExtendedAgentCardRequest,  # noqa: ARG002 - the interface's
        context: ServerCallContext,  # noqa: ARG002
    ) -> a2a.AgentCard:
        """There is none: the card says all."""
        raise UnsupportedOperationError("the agent has no extended card: its card says all")

    async def _sent(
        self, book: TaskBook, params: a2a.SendMessageRequest, context: ServerCallContext
    ) -> TaskRecord:
        caller = _caller(context, waits=not params.configuration.return_immediately)
        message = _message(params.message)
        wish = wish_of(message)
        if task_id := params.message.task_id:
            record = (await book.entry(task_id, caller.owner)).value
            return await self._gone_on(book, record, caller, message, wish.skill)
        if not self._agent.handlers:
            raise UnsupportedOperationError("the agent has no handlers that messages could be for")
        handler = skill_for(wish, self._agent.handlers, self._agent.default)
        arguments_for(handler, [message])
        pushes: tuple[Json, ...] = ()
        if params.configuration.HasField("task_push_notification_config"):
            pushes = (_config(params.configuration.task_push_notification_config, caller),)
        return await book.begin(caller, handler.kind, message, pushes=pushes)

    async def _gone_on(
        self, book: TaskBook, record: TaskRecord, caller: Caller, message: Json, skill: str | None
    ) -> TaskRecord:
        handler = self._agent.handlers.get(record.skill)
        if handler is not None and not caller.repetition:
            asked = [each for each in record.messages() if each["role"] == USER]
            arguments_for(handler, [*asked, message])
        return await book.go_on(record.id, caller, message, skill)

    async def _record(self, task_id: str, context: ServerCallContext) -> TaskRecord:
        book = await self._door.book()
        return (await book.entry(task_id, _caller(context).owner)).value

    async def _found(self, book: TaskBook, task_id: str, context: ServerCallContext) -> Snapshot:
        return await snapshot(book, (await book.entry(task_id, _caller(context).owner)).value)


async def _followed(book: TaskBook, begun: Snapshot, *, through_rests: bool) -> AsyncGenerator[Event]:
    async with aclosing(events(book, begun, through_rests=through_rests)) as updates:
        async for each in updates:
            yield _event(each)


def _caller(context: ServerCallContext, *, waits: bool = True) -> Caller:
    headers = {name.lower(): value for name, value in context.state["headers"].items()}
    return caller_of(headers, context.tenant or "", waits=waits)


def _message(message: a2a.Message) -> Json:
    if message.role == a2a.ROLE_AGENT:
        raise InvalidParamsError("a message that is sent to an agent has the role ROLE_USER")
    found: Json = MessageToDict(message)
    return {**found, "role": USER}


def _task(task: Json) -> a2a.Task:
    return ParseDict(task, a2a.Task())


_EVENTS: dict[str, Any] = {
    "statusUpdate": a2a.TaskStatusUpdateEvent,
    "artifactUpdate": a2a.TaskArtifactUpdateEvent,
}


def _event(update: Json) -> Event:
    ((kind, content),) = update.items()
    event: Event = ParseDict(content, _EVENTS[kind]())
    return event


def _config(params: a2a.TaskPushNotificationConfig, caller: Caller) -> Json:
    """A push notification config as it is kept. Raises InvalidRequest for one that cannot be used."""
    config: Json = MessageToDict(params)
    config.pop("tenant", None)
    config.pop("taskId", None)
    config["id"] = params.id or secrets.token_hex(8)
    check_config(config, caller.name, outside=bool(caller.submitter))
    return config


def _config_message(config: Json, task_id: str) -> a2a.TaskPushNotificationConfig:
    return ParseDict({**config, "taskId": task_id}, a2a.TaskPushNotificationConfig())
