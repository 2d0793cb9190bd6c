"""Agents that do what a test wants, in a mesh in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from weft import Agent, AgentError, Context, current

LIMIT = 30.0
"""Seconds in which anything happens that is waited for."""


class Crew:
    """What agents have been asked, and what they wait for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, object]] = []
        """Who was asked what, in order."""
        self.contexts: list[Context] = []
        self.cancelled: list[str] = []
        """Whose work was broken off, in order."""
        self.news = asyncio.Condition()
        self._gates: dict[str, asyncio.Event] = {}

    def gate(self, name: str) -> asyncio.Event:
        """What an agent of that type waits for before it answers, if anybody has asked for it."""
        return self._gates.setdefault(name, asyncio.Event())

    def agent(self, name: str, *, answer: object = None, fails: bool = False) -> Agent:
        """An agent that answers `task` with `answer`, or says who it is and what it was asked."""
        agent = Agent(name, capabilities=["think"])

        @agent.handles("task")
        async def work(task: object) -> object:
            await self._note(name, task)
            await self._wait(name)
            if fails:
                raise AgentError(f"{name} cannot", status=422)
            return f"{name}: {task}" if answer is None else answer

        @agent.streams("words")
        async def words(task: str) -> AsyncIterator[str]:
            await self._note(name, task)
            for word in task.split():
                yield word
            await self._wait(name)
            if fails:
                raise AgentError(f"{name} cannot")

        @agent.handles("synthesize")
        async def merge(task: str, answers: list[dict[str, object]]) -> str:
            await self._note(name, task)
            return f"{name} made one of {len(answers)}"

        return agent

    async def until(self, holds: object) -> None:
        """Wait until `holds()` is true; asked when anything happens."""
        assert callable(holds)
        async with asyncio.timeout(LIMIT), self.news:
            await self.news.wait_for(holds)

    async def _note(self, name: str, task: object) -> None:
        self.asked.append((name, task))
        self.contexts.append(current())
        await self._tell()

    async def _wait(self, name: str) -> None:
        if name not in self._gates:
            return
        try:
            await self._gates[name].wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            await self._tell()
            raise

    async def _tell(self) -> None:
        async with self.news:
            self.news.notify_all()
