"""An agent that works on the tasks of a queue, and tells how far it is.

weft run --type researcher -- python examples/tasks/worker.py
"""

from __future__ import annotations

import asyncio

from weft import Agent, InvalidRequest, TaskRun

agent = Agent("researcher")


@agent.task("research")
async def research(question: str, task: TaskRun, sources: int = 3) -> dict[str, object]:
    """Ask each word what it knows. The parameter `task` is filled in; the others are the task's payload."""
    words = question.split()
    if not words:
        raise InvalidRequest("there is no question")  # trying again would not help
    for number, word in enumerate(words[:sources], 1):
        await asyncio.sleep(0.1)
        await task.progress(number / min(sources, len(words)), f"read about {word!r}")
        await task.partial({"source": word})
    return {"answer": f"because of the {words[-1]}", "attempt": task.attempt}


if __name__ == "__main__":
    agent.run()
