"""What happens to a task, as it happens: followed over lost connections, and shown."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from weft.cli.resuming import resumed
from weft.cli.show import STATUS_STYLES, console, printable
from weft.local.messaging_control import MessagingApi

_BAR_WIDTH = 30


async def followed(tasks: MessagingApi, task_id: str) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    """`state` with the task, `progress` and `partial` with what its worker told, in order, for ever.

    After the task's end its last state comes again and again: whoever follows stops there.
    """
    last = ""
    told: tuple[str, int] | None = None
    async with aclosing(resumed(lambda: tasks.follow(task_id, last))) as events:
        async for event in events:
            last = event.id or last
            document = json.loads(event.data)
            if event.name == "state":
                standing = (document["state"], document["attempts"])
                if standing == told:
                    continue  # told again after the connection was lost
                told = standing
            yield event.name, document


class TaskDisplay:
    """Shows what happens: on a terminal with a bar for the progress. A context manager."""

    def __init__(self, *, as_json: bool = False, on_stderr: bool = False) -> None:
        """`as_json`: each event as a line of JSON. `on_stderr`: standard output is left to the result."""
        self._as_json = as_json
        self._out = console(stderr=on_stderr)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bar()

    def show(self, name: str, document: dict[str, Any]) -> None:
        """Show one event."""
        if self._as_json:
            print(json.dumps({"event": name, **document}, ensure_ascii=False), flush=True)
        elif name == "progress" and self._out.is_terminal:
            self._draw(document["data"])
        else:
            if name == "state":
                self._end_bar()
            self._out.print(_line(name, document))

    def _draw(self, progress: dict[str, Any]) -> None:
        if self._live is None:
            self._live = Live(console=self._out, auto_refresh=False, transient=True)
            self._live.start()
        grid = Table.grid(padding=(0, 1))
        fraction = progress.get("fraction")
        bar = ProgressBar(1.0, fraction or 0.0, width=_BAR_WIDTH, pulse=fraction is None)
        grid.add_row(bar, Text(printable(progress_text(progress))))
        self._live.update(grid, refresh=True)

    def _end_bar(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def progress_text(progress: dict[str, Any]) -> str:
    """How far a worker says it is: `40% reading`."""
    fraction, message = progress.get("fraction"), str(progress.get("message") or "")
    return message if fraction is None else f"{fraction * 100:.0f}% {message}".rstrip()


def _line(name: str, document: dict[str, Any]) -> Text:
    if name == "progress":
        return Text(f"progress   {printable(progress_text(document['data']))}", style="dim")
    if name == "partial":
        data = document["data"]
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        return Text(f"partial    {printable(text)}")
    state = document["state"]
    line = Text(f"{state:10} ", style=STATUS_STYLES.get(state, ""))
    line.append(printable(_beside(document)), style="default")
    line.rstrip()
    return line


def _beside(task: dict[str, Any]) -> str:
    """What there is to say of a state."""
    error = f"{task['error']['code']}: {task['error']['detail']}" if "error" in task else ""
    match task["state"]:
        case "running":
            return f"attempt {task['attempts']}, by {task.get('worker') or 'a worker'}"
        case "queued":
            return f"attempt {task['attempts']} failed: {error}" if task["attempts"] and error else ""
        case "failed":
            return error
    return ""
