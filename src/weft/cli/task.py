"""`weft task`: give work to a queue, and see what becomes of it."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from weft.cli.api import control_api
from weft.cli.exit_codes import ExitCode
from weft.cli.following_task import TaskDisplay, followed, progress_text
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.payload import PayloadFile, payload
from weft.cli.show import age, print_facts, print_json, print_table, shortened
from weft.cli.times import seconds
from weft.errors import InvalidRequest
from weft.local.messaging_control import MessagingApi
from weft.model.task import TaskState
from weft.sidecar.arguments import parse_label

app = App(name="task", help="Give work to a queue, and see what becomes of it.")

_HERE = ControlPlane()

_Id = Annotated[str, Parameter(help="The task's id.")]

_ENDED = {str(each) for each in TaskState if each.terminal}


@app.command
async def submit(
    queue: Annotated[str, Parameter(help="Where it goes.")],
    /,
    *words: Annotated[
        str,
        Parameter(help="Its payload: JSON, or NAME=VALUE (text) and NAME:=VALUE (JSON) of an object."),
    ],
    file: PayloadFile = None,
    priority: Annotated[
        Literal["high", "normal", "low"], Parameter(help="Which of those that wait go first.")
    ] = "normal",
    delay: Annotated[str | None, Parameter(help="It starts no earlier than in 30s, 5m, 2h, 1d.")] = None,
    deadline: Annotated[
        str | None, Parameter(help="It is too late for it in 30s, 5m, 2h, 1d (default: as the queue says).")
    ] = None,
    key: Annotated[
        str | None, Parameter(help="What is submitted again with the same key is the same task.")
    ] = None,
    label: Annotated[
        tuple[str, ...], Parameter(help="NAME=VALUE; may be repeated.", negative="", show_default=False)
    ] = (),
    wait: Annotated[
        bool, Parameter(help="Wait for its end, and print its result.", negative="", show_default=False)
    ] = False,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> ExitCode:
    """Put a task into a queue, and print its id.

    `weft task submit summarize text="A long text" length:=20 --wait`

    `weft task submit summarize -f request.json --priority high --delay 5m`

    With `--wait` its id and progress go to standard error, and the exit code is 1 if it failed, 9 if it was
    cancelled. It goes on if the wait is interrupted.
    """
    document: dict[str, Any] = {
        "queue": queue,
        "payload": payload(words, file),
        "priority": priority,
        "delay": None if delay is None else seconds(delay, "--delay"),
        "deadlineIn": None if deadline is None else seconds(deadline, "--deadline"),
        "idempotencyKey": key,
        "labels": dict(parse_label(each) for each in label),
    }
    async with control_api(where) as api:
        tasks = MessagingApi(api)
        task = await tasks.submit(document)
        if wait:
            print(task["id"], file=sys.stderr)
            with TaskDisplay(on_stderr=True) as display:
                task = await _end_of(tasks, task["id"], display)
    if output is Output.JSON:
        print_json(task)
    elif not wait:
        print(task["id"])
    elif task["state"] == TaskState.SUCCEEDED:
        _print_value(task.get("result"))
    return _exit_code(task) if wait else ExitCode.OK


@app.command
async def get(task_id: _Id, /, *, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE) -> None:
    """Show how a task stands, and its result."""
    async with control_api(where) as api:
        task = await MessagingApi(api).task(task_id)
    if output is Output.JSON:
        print_json(task)
        return
    print_facts(_facts(task))
    if "result" in task:
        print("result")
        _print_value(task["result"])


@app.command(name="ls")
async def list_all(
    queue: Annotated[str, Parameter(help="The queue's name.")],
    /,
    *,
    state: Annotated[
        TaskState | None, Parameter(help="Only tasks that are in this state.", show_default=False)
    ] = None,
    limit: Annotated[int, Parameter(help="At most so many.")] = 100,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """List the tasks of a queue that changed last, the newest first; also those that ended not long ago."""
    if limit < 1:
        raise InvalidRequest("--limit must be at least 1")
    async with control_api(where) as api:
        found = await MessagingApi(api).tasks(queue, state=state, limit=limit)
    if output is Output.JSON:
        print_json(found)
        return
    columns = ("ID", "STATE", "PRIORITY", "ATTEMPTS", "AGE", "WORKER", "WHAT")
    rows = (
        (
            each["id"],
            each["state"],
            each["priority"],
            str(each["attempts"]),
            age(datetime.fromisoformat(each["submittedAt"]).timestamp()),
            each.get("worker", ""),
            _what(each),
        )
        for each in found
    )
    print_table(columns, rows, none=f"queue {queue} has no such tasks")


@app.command
async def watch(
    task_id: _Id, /, *, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE
) -> ExitCode:
    """Show what happens to a task until its end: its states, its progress, its partial results, its result.

    It goes on where it was if the connection is lost. With `-o json` every event is a line. The exit code is
    1 if the task failed, 9 if it was cancelled.
    """
    async with control_api(where) as api:
        with TaskDisplay(as_json=output is Output.JSON) as display:
            task = await _end_of(MessagingApi(api), task_id, display)
    if output is Output.TABLE and "result" in task:
        _print_value(task["result"])
    return _exit_code(task)


@app.command
async def cancel(
    *task_ids: Annotated[str, Parameter(help="The ids of tasks.")],
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Cancel tasks. One that runs is interrupted; one that has ended stays as it is."""
    if not task_ids:
        raise InvalidRequest("say which tasks: `weft task cancel ID...`")
    async with control_api(where) as api:
        tasks = MessagingApi(api)
        cancelled = [await tasks.cancel(each) for each in task_ids]
    if output is Output.JSON:
        print_json(cancelled)
        return
    for each in cancelled:
        is_cancelled = each["state"] == TaskState.CANCELLED
        print(f"task/{each['id']} {'cancelled' if is_cancelled else 'had ' + each['state'] + ' already'}")


async def _end_of(tasks: MessagingApi, task_id: str, display: TaskDisplay) -> dict[str, Any]:
    """Show what happens to a task; how it ended."""
    async with aclosing(followed(tasks, task_id)) as events:
        async for name, document in events:
            display.show(name, document)
            if name == "state" and document["state"] in _ENDED:
                return document
    raise AssertionError("it is followed to its end")


def _exit_code(task: dict[str, Any]) -> ExitCode:
    if task["state"] == TaskState.CANCELLED:
        return ExitCode.CANCELLED
    return ExitCode.FAILED if task["state"] == TaskState.FAILED else ExitCode.OK


def _facts(task: dict[str, Any]) -> list[tuple[str, str]]:
    labels = ", ".join(f"{name}={value}" for name, value in sorted(task.get("labels", {}).items()))
    error, progress = task.get("error"), task.get("progress")
    return [
        ("id", task["id"]),
        ("state", task["state"]),
        ("priority", task["priority"]),
        ("submitter", task["submitter"]),
        ("submitted", _time(task["submittedAt"])),
        ("not before", _time(task.get("notBefore"))),
        ("deadline", _time(task.get("deadline"))),
        ("attempts", str(task["attempts"])),
        ("worker", task.get("worker", "")),
        ("started", _time(task.get("startedAt"))),
        ("finished", _time(task.get("finishedAt"))),
        ("labels", labels),
        ("context", task.get("context", "")),
        ("webhook", task.get("webhook", "")),
        ("progress", progress_text(progress) if progress else ""),
        ("error", f"{error['code']}: {error['detail']}" if error else ""),
    ]


def _what(task: dict[str, Any]) -> str:
    """In a few words what there is to know beside the state."""
    if task["state"] == TaskState.RUNNING and "progress" in task:
        return shortened(progress_text(task["progress"]))
    if "error" in task and task["state"] != TaskState.SUCCEEDED:
        return shortened(f"{task['error']['code']}: {task['error']['detail']}")
    return ""


def _time(text: str | None) -> str:
    """A time, on the clock of whoever reads it."""
    return "" if text is None else datetime.fromisoformat(text).astimezone().isoformat(" ", "seconds")


def _print_value(value: Any) -> None:
    print(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))
