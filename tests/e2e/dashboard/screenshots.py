"""Pictures of the dashboard for docs/images: `python -m tests.e2e.dashboard.screenshots [DIRECTORY]`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.e2e.dashboard.browser import Tab
from tests.e2e.dashboard.stage import Stage, dashboard_stage

IMAGES = Path(__file__).parents[3] / "docs" / "images"

SETTLED = 4.0
"""Seconds that a page has to draw everything, and to hear of the calls before."""


async def _trace(stage: Stage) -> str:
    traces = (await stage.mesh.api.ask("GET", "/v1/traces?service=planner&limit=20"))["traces"]
    return f"/traces/{max(traces, key=lambda each: each['spans'])['id']}"


async def _conversation(_stage: Stage) -> str:
    return "/conversations?id=trip-rome"


def _page(path: str) -> Callable[[Stage], Awaitable[str]]:
    async def page(_stage: Stage) -> str:
        return path

    return page


PICTURES: dict[str, Callable[[Stage], Awaitable[str]]] = {
    "mesh": _page("/"),
    "agents": _page("/agents"),
    "agent": _page("/agents/planner/planner-1"),
    "traffic": _page("/traffic"),
    "tasks": _page("/tasks"),
    "models": _page("/llm"),
    "tools": _page("/tools"),
    "traces": _page("/traces"),
    "trace": _trace,
    "conversation": _conversation,
    "policy": _page("/policy"),
}
DARK = {"mesh", "trace"}
NARROW = {"mesh", "agents"}


async def take(directory: Path) -> None:
    """Take all pictures."""
    async with dashboard_stage() as stage:
        for name, way in PICTURES.items():
            await stage.load(calls=24, broken=1, denied=1)
            path = await way(stage)
            await _picture(await stage.open(path), directory / f"dashboard-{name}.png")
            if name in DARK:
                await _picture(await stage.open(path, dark=True), directory / f"dashboard-{name}-dark.png")
            if name in NARROW:
                await stage.load(calls=24, broken=1, denied=1)  # what was sent before is not of late any more
                await _picture(await stage.open(path, width=390), directory / f"dashboard-{name}-narrow.png")


async def _picture(tab: Tab, file: Path) -> None:
    await asyncio.sleep(SETTLED)
    await tab.page.screenshot(path=file)
    await tab.page.close()
    print(file)


if __name__ == "__main__":
    images = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    images.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(images))
