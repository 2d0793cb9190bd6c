"""An event loop in which waiting takes no time: its clock jumps to whatever is due next."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _ImpatientSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits, and nothing is due: a deadlock")
        self.skipped += max(timeout, 0.0)
        return super().select(0)


class _FakeTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._impatient = _ImpatientSelector()
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.skipped


def run_in_fake_time(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`, which must do no I/O, in a loop of its own. Its timers and sleeps keep their order."""
    with asyncio.Runner(loop_factory=_FakeTimeLoop) as runner:
        return runner.run(work)
