"""The pages of tools: the catalogue, how calls went, and who may call."""

from __future__ import annotations

import re

from playwright.async_api import Locator, expect
from tests.e2e.dashboard.browser import LIMIT, Tab
from tests.e2e.dashboard.stage import Stage
from tests.e2e.messaging_mesh import document

from weft.model.operator import Scope

POLICY = "clerks-need-no-clock"


async def check(stage: Stage) -> None:
    """Calls are those that were made; who may call is what the policies say."""
    policy = document(
        "AccessPolicy", POLICY, effect="deny", to=[{"type": "clock"}], **{"from": [{"type": "clerk"}]}
    )
    await stage.mesh.api.apply(policy, "policy.yaml")
    try:
        await _lists_tools_with_their_calls(stage)
        await _tells_who_may_call(stage)
    finally:
        await stage.mesh.api.delete("AccessPolicy", POLICY)


async def _lists_tools_with_their_calls(stage: Stage) -> None:
    for dark, width in ((False, 1280), (True, 390)):
        tab = await stage.open("/tools", scope=Scope.VIEWER, dark=dark, width=width)
        await tab.row("now", "now", "clock")
        await expect(tab.page.locator('.ag-row[row-id="clock"]')).to_be_visible(timeout=LIMIT)
        await tab.fits()
        await tab.page.get_by_label("Search names and descriptions").fill("no such tool")
        await tab.seen("No tool is there.")
        await tab.page.get_by_label("Search names and descriptions").fill("TIME")
        await tab.row("now")
        await tab.close()


async def _tells_who_may_call(stage: Stage) -> None:
    await stage.plan("visit by the clock", "trip-rome", tool=True)  # so that it is of the last five minutes
    tab = await stage.open("/tools")
    calls = _cell(tab, "now", "calls")
    await expect(calls).to_have_text(re.compile("^[1-9]"), timeout=LIMIT)
    assert 1 <= int(await calls.inner_text()) <= stage.sent.tools["now"]
    await tab.page.get_by_role("link", name="now").click()
    await expect(tab.page.get_by_role("heading", level=1)).to_have_text("Tool now", timeout=LIMIT)
    await tab.row("planner", "may", "yes")
    await tab.row("clerk", "may not", POLICY)
    await tab.seen('"type": "object"')
    await tab.close()
    tab = await stage.open("/tools/no-such-tool")
    await tab.seen("there is no tool 'no-such-tool'")
    await tab.close()


def _cell(tab: Tab, key: str, column: str) -> Locator:
    return tab.page.locator(f'.ag-row[row-id="{key}"] [col-id="{column}"]')
