"""The page Agents."""

from __future__ import annotations

from tests.e2e.dashboard.stage import Stage


async def check(stage: Stage) -> None:
    """Every instance is there, with its status and version."""
    tab = await stage.open("/agents")
    await tab.row("planner.planner-1", "planner-1", "healthy", "1.4.0")
    await tab.row("summarizer.summarizer-2", "healthy")
    await tab.close()
