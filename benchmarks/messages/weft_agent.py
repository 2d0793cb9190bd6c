"""An agent that does the tasks of the queue `bench`."""

from __future__ import annotations

import time

from weft import Agent

agent = Agent("worker")


@agent.task("bench")
async def age(sent: float) -> float:
    """The task: how many seconds ago it was submitted."""
    return time.time() - sent


if __name__ == "__main__":
    agent.run()
