"""An agent on the SDK that writes down what it does: `python hand.py JOURNAL`.

The journal gets `call <name> <instance>` for each call and `task <number> <instance>` for each attempt at a
task, before anything else happens.
"""

from __future__ import annotations

import asyncio
import os
import sys

from weft import Agent

JOURNAL = sys.argv[1]
INSTANCE = os.environ["WEFT_INSTANCE"]

agent = Agent("hand", concurrency=64)


@agent.handles("work")
async def work(name: str) -> str:
    """Take a moment, and say who did it."""
    _write_down("call", name)
    await asyncio.sleep(0.05)
    return INSTANCE


@agent.task("chores")
async def chore(number: int) -> str:
    """Take longer."""
    _write_down("task", number)
    await asyncio.sleep(0.5)
    return INSTANCE


def _write_down(*words: object) -> None:
    """One line in one write: whoever dies leaves a whole line, or none."""
    descriptor = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{' '.join(map(str, words))} {INSTANCE}\n".encode())
    os.close(descriptor)


if __name__ == "__main__":
    agent.run()
