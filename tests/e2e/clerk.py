"""An agent that does tasks and takes events: `python clerk.py`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from weft import Agent, InvalidRequest, ReceivedEvent, TaskRun
from weft.aio.poll import until

agent = Agent("clerk")


@agent.task("count")
async def count(run: TaskRun, text: str) -> int:
    """Count words, and tell each."""
    words = text.split()
    for number, word in enumerate(words, 1):
        await run.partial(word)
        await run.progress(number / len(words), f"read {word}")
    return len(words)


@agent.task("fragile")
async def fragile(mended: str) -> str:
    """Fail until the file `mended` is there."""
    if not await asyncio.to_thread(Path(mended).exists):
        raise InvalidRequest("nobody mended it")
    return "mended"


@agent.task("endless")
async def endless(gate: str) -> str:
    """Go on until the file `gate` is there."""

    async def opened() -> bool:
        return await asyncio.to_thread(Path(gate).exists)

    await until(opened, longest=0.05)
    return "opened"


@agent.on("orders")
async def order(event: ReceivedEvent) -> None:
    """Say that it came."""
    print(f"order {event.event.subject}", flush=True)


if __name__ == "__main__":
    agent.run()
