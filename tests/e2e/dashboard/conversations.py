"""The pages of conversations: those that were seen, and what is kept of one."""

from __future__ import annotations

from playwright.async_api import expect
from tests.e2e.dashboard.browser import LIMIT
from tests.e2e.dashboard.stage import CONVERSATIONS, Stage

from weft import Mesh
from weft.model.operator import Scope

EVIL = "<img src=x onerror=alert(1)>"
ODD = "odd/../conversation?id=1#<b>"
"""An id of which each part could be taken for something else."""


async def check(stage: Stage) -> None:
    """Who may read a conversation finds it whole, and nothing in it is more than text."""
    await _lists_what_was_seen(stage)
    await _shows_one(stage)
    await _is_private(stage)
    await _shows_what_was_said_as_text(stage)


async def _lists_what_was_seen(stage: Stage) -> None:
    tab = await stage.open("/conversations")
    for each in CONVERSATIONS:
        await tab.row(each, "planner")
    await tab.page.get_by_label("Conversation's id").fill("never-was")
    await tab.page.get_by_label("Conversation's id").press("Enter")
    await tab.seen("there is no context 'never-was'")
    await tab.close()


async def _shows_one(stage: Stage) -> None:
    tab = await stage.open(f"/conversations?id={CONVERSATIONS[0]}")
    page = tab.page
    said = page.get_by_role("list", name="Messages").locator("li")
    sent = stage.sent.messages[CONVERSATIONS[0]]
    await tab.seen(f"of {sent:,}")
    await expect(said.first).to_contain_text("planner/planner-1")
    await expect(said.filter(has_text="visit 0").first).to_contain_text("user")
    await expect(page.locator('a[href^="/dashboard/traces/"]').first).to_be_visible(timeout=LIMIT)
    await expect(page.get_by_text("gpt-4o-mini:").first).to_be_visible(timeout=LIMIT)
    await tab.close()


async def _is_private(stage: Stage) -> None:
    tab = await stage.open(f"/conversations?id={CONVERSATIONS[0]}", scope=Scope.VIEWER)
    await tab.seen("takes a token with the scope operator")
    await expect(tab.page.locator('a[href^="/dashboard/traces/"]').first).to_be_visible(timeout=LIMIT)
    assert not await tab.page.get_by_text("visit 0").count()
    await tab.close()


async def _shows_what_was_said_as_text(stage: Stage) -> None:
    await _say(stage.client)
    tab = await stage.open("/conversations", dark=True, width=390)
    page = tab.page
    await page.get_by_label("Conversation's id").fill(ODD)
    await page.get_by_role("button", name="Open").click()
    for text in (f"say {EVIL}", f"{EVIL}.html", "text/html", "window.PWNED = 1"):
        await tab.seen(text)
    await tab.seen("Messages 6 to 25 of 25")
    await page.get_by_role("button", name="Older").click()
    await tab.seen("Messages 1 to 20 of 25")
    await page.get_by_role("button", name="Newer").click()
    await tab.seen("Messages 21 to 25 of 25")
    await tab.fits()
    await tab.close()


async def _say(client: Mesh) -> None:
    """Keep a conversation of all that might be taken for more than text."""
    conversation = client.context(ODD, create=True)
    for number in range(24):
        await conversation.append("user" if number % 2 else EVIL, f"message {number}")
    await conversation.append("assistant", {"text": f"say {EVIL}", ":x": "window.PWNED = 1"}, note=EVIL)
    await conversation.compare_and_set({EVIL: EVIL}, 0)
    await conversation.put_artifact(f"{EVIL}.html", b"<script>window.PWNED = 1</script>", "text/html")
