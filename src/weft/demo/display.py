"""How far the demo is: live on a terminal, line by line elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from weft.demo.fan_out import Answer, Failure
from weft.model.local_state import ChildState

READY = "ready"
RESTARTING = "restarting"

_START_WIDTH = 60
_STEPS = 10
"""Lines about a review's progress where there is no terminal."""


class Display(Protocol):
    """Hears how the demo goes."""

    def say(self, text: str) -> None:
        """Something that is worth a line of its own."""
        ...

    def starting(self, processes: int) -> None:
        """A mesh of so many processes is being started."""
        ...

    def child(self, state: ChildState) -> None:
        """A process of the mesh took a step."""
        ...

    def reviewing(self, calls: Mapping[str, int]) -> None:
        """The review begins: how many calls there will be, by kind of agent."""
        ...

    def answered(self, outcome: Answer | Failure) -> None:
        """A call is over."""
        ...

    def stopping(self, text: str) -> None:
        """The mesh is being stopped; `text` says so. Only the first time counts."""
        ...


@contextmanager
def display_on(console: Console) -> Iterator[Display]:
    """A display for the block: live if `console` is a terminal."""
    if not console.is_terminal:
        yield LineDisplay(console)
        return
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield LiveDisplay(progress)


class LiveDisplay:
    """Bars that fill."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._start = progress.add_task("starting the mesh", total=None)
        self._ready: dict[str, bool] = {}
        self._kinds: dict[str, TaskID] = {}
        self._stopping = False

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(Text(text))

    def starting(self, processes: int) -> None:
        """Show how many of the mesh's processes are ready."""
        self._progress.update(self._start, total=processes)

    def child(self, state: ChildState) -> None:
        """Count processes that are ready, and name the others; say which one is started anew."""
        if state.phase == RESTARTING:
            self.say(_restart(state))
        if not self._kinds and not self._stopping:
            self._ready[state.name] = state.phase == READY
            self._show_start()

    def reviewing(self, calls: Mapping[str, int]) -> None:
        """Show a bar for each kind of agent."""
        for kind, total in calls.items():
            self._kinds[kind] = self._progress.add_task(kind, total=total)

    def answered(self, outcome: Answer | Failure) -> None:
        """Fill the bar of its kind; say what failed."""
        if isinstance(outcome, Failure):
            self.say(_failure(outcome))
        self._progress.advance(self._kinds[outcome.kind])

    def stopping(self, text: str) -> None:
        """Show it beside a bar that fills no more."""
        if not self._stopping:
            self._stopping = True
            self._progress.add_task(text, total=None)

    def _show_start(self) -> None:
        waiting = [name for name, ready in self._ready.items() if not ready]
        names = f", waiting for {', '.join(waiting)}" if waiting else ""
        description = f"starting the mesh{names}"[:_START_WIDTH]
        self._progress.update(self._start, completed=len(self._ready) - len(waiting), description=description)


class LineDisplay:
    """A line for every process that is ready, and for every tenth of the review."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._expected = 0
        self._over = 0
        self._stopping = False

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(text), soft_wrap=True)

    def starting(self, processes: int) -> None:
        """Say how many processes the mesh will have."""
        self.say(f"starting a mesh of {processes} processes")

    def child(self, state: ChildState) -> None:
        """Say that a process is ready, or is started anew."""
        if state.phase == READY:
            self.say(f"{state.name} is ready")
        elif state.phase == RESTARTING:
            self.say(_restart(state))

    def reviewing(self, calls: Mapping[str, int]) -> None:
        """Say how many calls there will be."""
        self._expected = sum(calls.values())
        self.say(f"reviewing: {self._expected} calls to {', '.join(calls)}")

    def answered(self, outcome: Answer | Failure) -> None:
        """Say how many calls are over, at every tenth; and every failure."""
        if isinstance(outcome, Failure):
            self.say(_failure(outcome))
        self._over += 1
        if self._over * _STEPS // self._expected > (self._over - 1) * _STEPS // self._expected:
            self.say(f"{self._over} of {self._expected} answers")

    def stopping(self, text: str) -> None:
        """Print a line."""
        if not self._stopping:
            self._stopping = True
            self.say(text)


def _restart(state: ChildState) -> str:
    return f"{state.name} ended and is started anew"


def _failure(failure: Failure) -> str:
    return f"no answer from {failure.kind} about {failure.file}: {failure.reason}"
