"""An agent that orchestrates others, and those others: `python lead.py lead|hand JOURNAL`.

A hand writes into the journal `begun <how> <number> <instance>` and `broken-off <how> <number>`, where how is
`task` or `call`, and waits for the file that its order names.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from weft import Agent, Mesh
from weft.aio.poll import until
from weft.orchestration import Branch, coordinate

_, ROLE, JOURNAL = sys.argv
INSTANCE = os.environ["WEFT_INSTANCE"]

agent = Agent(ROLE)


def write_down(*words: object) -> None:
    """One line in one write: whoever dies leaves a whole line, or none."""
    descriptor = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{' '.join(map(str, words))}\n".encode())
    os.close(descriptor)


async def _done(how: str, number: int, gate: str) -> str:
    async def is_open() -> bool:
        return os.access(gate, os.F_OK)

    write_down("begun", how, number, INSTANCE)
    try:
        await until(is_open, longest=0.05)
    except asyncio.CancelledError:
        write_down("broken-off", how, number)
        raise
    return f"{how} {number}"


async def call(number: int, gate: str) -> str:
    """Asked directly."""
    return await _done("call", number, gate)


async def task(number: int, gate: str) -> str:
    """From the queue."""
    return await _done("task", number, gate)


async def orchestrate(mesh: Mesh, number: int, gate: str, calls: int) -> dict[str, Any]:
    """One task and some calls, side by side."""
    branches = [Branch("hand", name=f"call-{each}") for each in range(calls)]
    outcome = await coordinate(
        {"number": number, "gate": gate}, [Branch(queue="work", name="task"), *branches], mesh=mesh
    )
    return {
        "answers": {each.branch.label: each.value for each in outcome.results if each.ok},
        "errors": {each.branch.label: each.error.code for each in outcome.results if each.error is not None},
        "worker": outcome.results[0].instance,
    }


if ROLE == "lead":
    agent.handles("orchestrate")(orchestrate)
else:
    agent.handles("task")(call)
    agent.task("work")(task)

if __name__ == "__main__":
    agent.run()
