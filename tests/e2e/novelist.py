"""An agent that is called by A2A: `python novelist.py JOURNAL`, where it notes the attempts it begins."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from weft import Agent, InputRequired, current
from weft.aio.poll import until

JOURNAL = sys.argv[1]
INSTANCE = os.environ["WEFT_INSTANCE"]

agent = Agent("novelist", capabilities=["write"])


@agent.handles("echo", default=True)
async def echo(text: str) -> dict[str, str | None]:
    """Say it again, and who said it."""
    return {"text": text, "instance": INSTANCE, "caller": current().caller}


@agent.streams("chapters")
async def chapters(name: str, gate: str) -> AsyncGenerator[str, None]:
    """One chapter, and another once the file `gate` is there."""
    _note("chapters", name)
    yield f"one by {INSTANCE}"
    await _opened(gate)
    yield f"two by {INSTANCE}"


@agent.handles("hold")
async def hold(name: str, gate: str) -> str:
    """Answer once the file `gate` is there."""
    _note("hold", name)
    try:
        await _opened(gate)
    except asyncio.CancelledError:
        _note("cancelled", name)
        raise
    return INSTANCE


@agent.handles("title")
async def title(genre: str, name: str | None = None) -> str:
    """Ask for what is missing."""
    if name is None:
        raise InputRequired("whose novel is it?")
    return f"{name}: a {genre}"


async def _opened(gate: str) -> None:
    async def there() -> bool:
        return await asyncio.to_thread(Path(gate).exists)

    await until(there, longest=0.05)


def _note(what: str, name: str) -> None:
    """One line in one write: whoever dies leaves a whole line, or none."""
    descriptor = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{what} {name} {INSTANCE}\n".encode())
    os.close(descriptor)


if __name__ == "__main__":
    agent.run()
