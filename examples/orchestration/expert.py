"""An agent that always has the same opinion, and studies a question if it is given the time.

weft run --type optimist -- python examples/orchestration/expert.py yes
"""

from __future__ import annotations

import asyncio
import os
import sys

from weft import Agent, TaskRun

OPINION = sys.argv[1] if len(sys.argv) > 1 else "perhaps"

agent = Agent(os.environ.get("WEFT_TYPE", "expert"), capabilities=["opinion"])


@agent.handles("task")
async def answer(task: str) -> str:
    """An opinion, at once."""
    return f"{task}? {OPINION}"


@agent.handles("ballot")
async def ballot(task: str) -> str:
    """The same in a word, if there is something to decide."""
    return OPINION if task else "nothing"


@agent.task("studies")
async def study(task: str, run: TaskRun) -> str:
    """A study, by whichever expert has time for it."""
    words = task.split()
    for word in words:
        await run.partial(f"read about {word!r}")
        await asyncio.sleep(0.05)
    return f"after {len(words)} books: it depends"


if __name__ == "__main__":
    agent.run()
