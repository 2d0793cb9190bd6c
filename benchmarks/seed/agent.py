"""The seed's agent: asks the simulated LLM, a few times at once, in the order in which it was asked itself.

Arguments: its type, and the queue whose tasks it does, or nothing. The file at SEED_CLOCK says when the
simulated time began (in seconds since 1970), how many times as fast as ours it runs, and for how many of its
seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from functools import cache
from pathlib import Path

from benchmarks.seed.llm import CONCURRENCY, llm

from weft import Agent

PATIENT = 10_000
"""Calls that it lets wait: as a program does that thinks of no limit."""

agent = Agent(sys.argv[1], concurrency=PATIENT)
_places = asyncio.Semaphore(CONCURRENCY)


async def think(number: int) -> int:
    """Ask the LLM."""
    async with _places:
        began, scale, seconds = _clock()
        now = (time.time() - began) * scale
        await asyncio.sleep(llm(seconds).duration(now, number) / scale)
    return number


@cache
def _clock() -> tuple[float, float, float]:
    began, scale, seconds = Path(os.environ["SEED_CLOCK"]).read_text(encoding="utf-8").split()
    return float(began), float(scale), float(seconds)


if len(sys.argv) > 2:
    agent.task(sys.argv[2])(think)
else:
    agent.handles("think")(think)

if __name__ == "__main__":
    agent.run()
