"""An agent on the SDK that does tasks and takes events: `python scribe.py JOURNAL QUEUE... -- TOPIC...`.

A task may say: `fail`, how many attempts fail; `steps`, how many partial results it tells; `gate`, a file
without which it does not go on after the first of these (or, without any, at all); `note`, anything. The
journal gets `task <number> <instance> <attempt>` and `event <type> <data> <instance>`, each before anything
else happens.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from weft import Agent, ReceivedEvent, TaskRun
from weft.aio.poll import until

_, JOURNAL, *_rest = sys.argv
_place = _rest.index("--")
INSTANCE = os.environ["WEFT_INSTANCE"]

agent = Agent("scribe")


def write_down(*words: object) -> None:
    """One line in one write: whoever dies leaves a whole line, or none."""
    descriptor = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{' '.join(map(str, words))}\n".encode())
    os.close(descriptor)


async def task(
    run: TaskRun, number: int, fail: int = 0, steps: int = 0, gate: str = "", note: str = ""
) -> dict[str, Any]:
    """Do as the task says."""
    write_down("task", number, INSTANCE, run.attempt)
    if run.attempt <= fail:
        raise RuntimeError(f"task {number} does not like attempt {run.attempt}")
    for step in range(steps):
        await run.partial(step)
        if not step:
            await _opened(gate)
    if not steps:
        await _opened(gate)
    return {"number": number, "attempt": run.attempt}


async def _opened(gate: str) -> None:
    async def is_open() -> bool:
        return not gate or os.access(gate, os.F_OK)

    await until(is_open, longest=0.05)


async def event(received: ReceivedEvent) -> None:
    """Write it down."""
    write_down("event", os.environ["WEFT_TYPE"], received.data, INSTANCE)


for queue in _rest[:_place]:
    agent.task(queue)(task)
for topic in _rest[_place + 1 :]:
    agent.on(topic)(event)

if __name__ == "__main__":
    agent.run()
