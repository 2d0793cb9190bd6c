"""An agent that writes down what it executes, before it answers: `python worker.py JOURNAL`.

The journal gets a line `<call> <instance> <pid>` for every execution, at its beginning.
"""

from __future__ import annotations

import asyncio
import os
import sys

from weft import Agent
from weft.aio.poll import until

JOURNAL = sys.argv[1]
INSTANCE = os.environ["WEFT_INSTANCE"]

agent = Agent("worker", concurrency=64)


@agent.handles("work")
async def work(call: str, seconds: float = 0.0) -> str:
    """Take so long, and say who did it."""
    _write_down(call)
    await asyncio.sleep(seconds)
    return INSTANCE


@agent.handles("hold")
async def hold(call: str, gate: str) -> str:
    """Answer once the file `gate` is there."""
    _write_down(call)

    async def opened() -> bool:
        return os.access(gate, os.F_OK)

    await until(opened, longest=0.05)
    return INSTANCE


def _write_down(call: str) -> None:
    """One line in one write: whoever dies leaves a whole line, or none."""
    line = f"{call} {INSTANCE} {os.getpid()}\n"
    descriptor = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


if __name__ == "__main__":
    agent.run()
