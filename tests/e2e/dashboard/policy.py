"""The pages of policy: who can reach whom, denials, the audit, the AccessPolicies."""

from __future__ import annotations

import re

from playwright.async_api import Locator, expect
from tests.e2e.dashboard.browser import LIMIT, Tab
from tests.e2e.dashboard.stage import Stage


async def check(stage: Stage) -> None:
    """What the pages say is what the policies come to, and what happened."""
    await _shows_who_can_reach_whom(stage)
    await _asks_and_explains(stage)
    await _tells_of_denials_as_they_happen(stage)
    await _finds_records_of_the_audit(stage)
    await _shows_policies(stage)


async def _shows_who_can_reach_whom(stage: Stage) -> None:
    tab = await stage.open("/policy")
    page = tab.page
    denied = page.get_by_role("gridcell", name="planner to vault: denied, by vault-is-closed")
    await expect(denied).to_have_text("✕", timeout=LIMIT)
    await expect(page.get_by_role("gridcell", name="clerk to vault: allowed")).to_have_text("✓")
    # By keyboard: along the row, and what decided.
    await denied.click()
    await expect(page.get_by_role("status").filter(has_text="vault-is-closed")).to_be_visible(timeout=LIMIT)
    await expect(page).to_have_url(re.compile("caller=planner"), timeout=LIMIT)
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").filter(has_text="✓ allowed")).to_be_visible(timeout=LIMIT)
    await page.get_by_role("textbox", name="Callers").fill("plan")
    await expect(page.get_by_role("rowheader")).to_have_count(1, timeout=LIMIT)
    await page.get_by_role("textbox", name="Can reach").fill("nothing-like-it")
    await tab.seen("Nothing matches.")
    await tab.close()
    tab = await stage.open("/policy", dark=True, width=390)
    await expect(tab.page.get_by_role("gridcell").first).to_be_visible(timeout=LIMIT)
    await tab.fits()
    await tab.close()


async def _asks_and_explains(stage: Stage) -> None:
    tab = await stage.open("/policy?caller=planner&callee=vault&path=/rpc")
    await tab.seen("✕ denied")
    await tab.seen("planner call vault (POST /rpc)")
    await tab.page.get_by_label("What: a type").fill("<img src=x onerror=alert(1)>")
    await tab.page.get_by_role("button", name="Ask").click()
    await tab.seen("<img src=x onerror=alert(1)>")
    await tab.close()


async def _tells_of_denials_as_they_happen(stage: Stage) -> None:
    tab = await stage.open("/policy/denials")
    row = _row(tab, "planner/planner-1")
    await expect(row).to_contain_text("vault-is-closed", timeout=LIMIT)
    newest = tab.page.locator('.ag-row[row-index="0"]')
    before = str(await newest.get_attribute("row-id"))
    await stage.load(calls=0, broken=0, denied=1)
    await expect(newest).not_to_have_attribute("row-id", before, timeout=LIMIT)
    await expect(newest).to_contain_text("vault-is-closed", timeout=LIMIT)
    await expect(tab.page.get_by_text(re.compile("^[1-9].* refused in the last 5 minutes"))).to_be_visible(
        timeout=LIMIT
    )
    await row.locator('[col-id="who"]').click()
    told = tab.page.get_by_role("dialog")
    await expect(told).to_contain_text("spiffe://weft.local/agent/planner/planner-1", timeout=LIMIT)
    await told.get_by_role("button", name="Close").click()
    await expect(told).to_be_hidden(timeout=LIMIT)
    await tab.close()


async def _finds_records_of_the_audit(stage: Stage) -> None:
    tab = await stage.open("/policy/audit?outcome=denied", dark=True, width=390)
    await expect(_row(tab, "planner/planner-1")).to_contain_text("denied", timeout=LIMIT)
    page = tab.page
    assert not await page.locator(".ag-row").filter(has_text="done").count()
    await page.get_by_label("Text", exact=True).fill("no record has this")
    await tab.seen("Nothing matches among the last 1,000 records.")
    await expect(page).to_have_url(re.compile(r"q=no\+record"), timeout=LIMIT)
    await tab.fits()
    await tab.close()


async def _shows_policies(stage: Stage) -> None:
    tab = await stage.open("/policy/policies?name=vault-is-closed")
    await tab.seen("It denies planner to reach vault.")
    await tab.seen('"effect": "deny"')
    await tab.close()


def _row(tab: Tab, text: str) -> Locator:
    return tab.page.locator(".ag-row").filter(has_text=text).first
