"""The pages Agents and Agent."""

from __future__ import annotations

import time

from playwright.async_api import expect
from tests.e2e.dashboard.browser import LIMIT, Tab
from tests.e2e.dashboard.stage import Stage

from weft.model.operator import Scope

VICTIM = "summarizer.summarizer-2"

_NOTE_RED = """key => {
  window.reddened = 0;
  const red = `.ag-row[row-id="${key}"] [col-id="status"] .weft-bad`;
  const note = () => { if (!window.reddened && document.querySelector(red)) window.reddened = Date.now(); };
  new MutationObserver(note).observe(document.body, {subtree: true, childList: true, attributes: true});
}"""
"""Notes when an instance's state was red, in milliseconds since 1970."""


async def check(stage: Stage) -> None:
    """Every instance is there as it is; one that is killed turns red; operators drain, viewers look."""
    tab = await stage.open("/agents")
    await tab.row("planner.planner-1", "planner-1", "healthy", "1.4.0", "in sync")
    await tab.row("summarizer.summarizer-1", "healthy", "summarize")
    await _killed(stage, tab)
    await _one(stage, tab)
    await tab.close()
    await _viewed(stage)
    for dark in (False, True):
        narrow = await stage.open("/agents", dark=dark, width=390)
        await narrow.row(VICTIM, "summarizer-2")
        await narrow.fits()
        await narrow.close()


async def _killed(stage: Stage, tab: Tab) -> None:
    state = tab.page.locator(f'.ag-row[row-id="{VICTIM}"] [col-id="status"] .weft-state')
    await expect(state).to_have_class("weft-state weft-ok", timeout=LIMIT)
    # It is back within moments, which who looks now and then may miss.
    await tab.page.evaluate(_NOTE_RED, VICTIM)
    killed = time.time()
    stage.mesh.program("summarizer-2").kill()
    await tab.page.wait_for_function("window.reddened > 0")
    red = await tab.page.evaluate("window.reddened") / 1000 - killed
    print(f"a killed agent was red after {red:.2f} s")
    await expect(state).to_have_class("weft-state weft-ok", timeout=LIMIT)
    await stage.mesh.ready("summarizer-2")


async def _one(stage: Stage, tab: Tab) -> None:
    """From the table to one instance, by the keyboard; and it is drained."""
    page = tab.page
    await page.locator(f'.ag-row[row-id="{VICTIM}"] [col-id="status"]').click()
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("summarizer-2", timeout=LIMIT)
    await tab.seen("in sync: its Envoy has taken everything")
    await tab.seen("weft logs summarizer/summarizer-2 -f")
    before = stage.mesh.process("summarizer-2").pid
    await page.get_by_role("button", name="Drain").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("dialog")).to_have_count(0, timeout=LIMIT)
    await page.get_by_role("button", name="Drain").click()
    await page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    await tab.seen("finishes what it has in flight and leaves")
    await stage.mesh.notices("summarizer-2")
    await stage.mesh.ready("summarizer-2")
    assert stage.mesh.process("summarizer-2").pid != before


async def _viewed(stage: Stage) -> None:
    tab = await stage.open("/agents/planner/planner-1", scope=Scope.VIEWER)
    await tab.seen("in sync: its Envoy has taken everything")
    assert not await tab.page.get_by_role("button", name="Drain").count()
    await tab.page.goto(f"{stage.url}/agents/planner/nobody-9")
    await tab.seen("no instance 'nobody-9' of type 'planner' is registered")
    await tab.close()
