"""The page Mesh."""

from __future__ import annotations

import re

from playwright.async_api import expect
from tests.e2e.dashboard.browser import LIMIT, Tab
from tests.e2e.dashboard.stage import Stage
from tests.e2e.meshes import eventually

NODES = (
    "agent/planner",
    "agent/summarizer",
    "agent/vault",
    "agent/clerk",
    "agent/clock",
    "caller/operator/local",
    "queue/orders",
    "topic/news",
    "model/default",
)


async def check(stage: Stage) -> None:
    """Everybody who calls or is called is drawn, and the table says how often and how well."""
    tab = await stage.open("/")
    async with stage.busy():  # it shows the last 30 seconds
        for node in NODES:
            await expect(tab.page.locator(f'[data-node="{node}"]')).to_be_visible(timeout=LIMIT)
        await _counted(stage, tab)
        denied = tab.page.locator('[data-edge="agent/planner agent/vault"]')
        await expect(denied).to_have_class("weft-edge weft-bad", timeout=LIMIT)
        share = tab.page.locator('.ag-row[row-id="agent/planner agent/vault"] [col-id="success"]')
        await expect(share).to_have_text("0.0 %", timeout=LIMIT)
    await _walked(tab)
    await tab.close()
    for dark in (False, True):
        narrow = await stage.open("/", dark=dark, width=390)
        await expect(narrow.page.locator('[data-node="agent/planner"]')).to_be_visible(timeout=LIMIT)
        await narrow.fits()
        await narrow.close()


async def _counted(stage: Stage, tab: Tab) -> None:
    """What was sent within the window is what the table counts; how many that is, the load does not know."""
    key = "agent/planner agent/summarizer"

    async def told() -> bool:
        return await _calls(tab, key) >= 1

    await eventually(told, lambda: "the calls of the last seconds never came")
    assert await _calls(tab, key) <= stage.sent.calls["planner", "summarizer"]


async def _calls(tab: Tab, key: str) -> int:
    await tab.row(key)
    return int((await tab.cell(key, "calls")).replace(",", ""))


async def _walked(tab: Tab) -> None:
    """A node is reached by the keyboard, tells what it is, and leads to its page."""
    node = tab.page.locator('[data-node="agent/planner"]')
    await expect(node).to_have_attribute(
        "aria-label", re.compile("planner, agent: 1 of 1 healthy"), timeout=LIMIT
    )
    await node.focus()
    await tab.page.keyboard.press("Enter")
    await expect(tab.page.get_by_role("heading", level=1)).to_have_text("Agents: planner", timeout=LIMIT)
