"""The pages of tasks and events: queues, topics, dead letters, a task's life, and what operators do there."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import Locator, expect
from tests.e2e.dashboard.browser import LIMIT, Tab
from tests.e2e.dashboard.stage import NEWS, ORDERS_DEAD, ORDERS_DONE, Stage
from tests.e2e.messaging_mesh import document

from weft.aio.poll import until
from weft.local.messaging_control import MessagingApi
from weft.model.operator import Scope

SCRAPS = "scraps"
"""A queue on which nobody works."""

WAITING = 3

EVIL = '<img src=x onerror="alert(1)">'
"""What the agents of `cast.py` put into results and errors."""


async def check(stage: Stage) -> None:
    """What is shown is what was submitted and published, and what became of it."""
    api = MessagingApi(stage.mesh.api)
    await stage.mesh.api.apply(document("Queue", SCRAPS, description="Nobody works on it."), "queue.yaml")
    try:
        await _shows_queues_and_topics(stage)
        await _shows_how_a_queue_is(stage)
        await _shows_a_tasks_life(stage)
        await _redrives_one_dead_letter(stage, api)
        await _cancels_and_throws_away(stage, api)
        await _shows_a_topic_and_its_dead_letters(stage, api)
        await _shows_viewers_no_more_than_they_may_see(stage)
    finally:
        await stage.mesh.api.delete("Queue", SCRAPS)


async def _shows_queues_and_topics(stage: Stage) -> None:
    for dark, width in ((False, 1280), (True, 390)):
        tab = await stage.open("/tasks", dark=dark, width=width)
        await _is(_cell(tab, "Queues", "orders", "dead"), str(ORDERS_DEAD))
        await _is(_cell(tab, "Queues", "orders", "depth"), "0")
        await _is(_cell(tab, "Topics", "news", "messages"), str(NEWS))
        await _is(_cell(tab, "Topics", "news", "lag"), "0")
        await tab.fits()
        await tab.close()


async def _shows_how_a_queue_is(stage: Stage) -> None:
    tab = await stage.open("/queues/orders")
    await expect(tab.page.get_by_role("group").filter(has_text="Dead letters")).to_contain_text(
        str(ORDERS_DEAD), timeout=LIMIT
    )
    for each in stage.sent.tasks[:ORDERS_DONE]:
        await _is(_cell(tab, "Tasks", each, "state"), "succeeded")
    await tab.page.get_by_role("combobox", name="State").click()
    await tab.page.get_by_role("option", name="failed").click()
    for each in stage.sent.dead:
        await _is(_cell(tab, "Tasks", each, "state"), "failed")
    await expect(_cell(tab, "Tasks", stage.sent.tasks[0], "state")).to_have_count(0, timeout=LIMIT)
    await tab.close()


async def _shows_a_tasks_life(stage: Stage) -> None:
    tab = await stage.open(f"/tasks/{stage.sent.tasks[0]}")
    steps = tab.page.get_by_role("listitem")
    await expect(steps.nth(0)).to_contain_text("Submitted", timeout=LIMIT)
    await expect(steps.nth(1)).to_contain_text("begun by clerk.clerk-1", timeout=LIMIT)
    await expect(steps.last).to_contain_text("Succeeded", timeout=LIMIT)
    await expect(steps.last).to_contain_text(EVIL.replace('"', '\\"'), timeout=LIMIT)
    await expect(tab.page.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile("attempt 1: "), timeout=LIMIT
    )
    await expect(tab.page.get_by_role("button", name="Cancel the task")).to_be_hidden(timeout=LIMIT)
    await tab.close()
    tab = await stage.open(f"/tasks/{stage.sent.dead[0]}", dark=True, width=390)
    await expect(tab.page.get_by_role("listitem").last).to_contain_text("cannot be done", timeout=LIMIT)
    await tab.fits()
    await tab.close()


async def _redrives_one_dead_letter(stage: Stage, api: MessagingApi) -> None:
    again = stage.sent.dead[0]
    before = (await api.task(again))["attempts"]
    tab = await stage.open("/queues/orders")
    letter = _cell(tab, "Dead letters", again, "reason")
    await expect(letter).to_contain_text(f"cannot be done: {EVIL}", timeout=LIMIT)
    await letter.click()
    await tab.seen('"dead":true')
    await tab.page.get_by_role("button", name="Redrive this one").click()
    await tab.page.get_by_role("dialog").get_by_role("button", name="Redrive this one").click()
    async with asyncio.timeout(LIMIT / 1000):
        await until(lambda: _tried_and_failed(api, again, before))
    await tab.close()


async def _tried_and_failed(api: MessagingApi, task_id: str, attempts: int) -> bool:
    task = await api.task(task_id)
    return bool(task["attempts"] > attempts and task["state"] == "failed")


async def _cancels_and_throws_away(stage: Stage, api: MessagingApi) -> None:
    tasks = [(await api.submit({"queue": SCRAPS, "payload": each}))["id"] for each in range(WAITING)]
    tab = await stage.open(f"/tasks/{tasks[0]}")
    await tab.page.get_by_role("button", name="Cancel the task").click()
    await tab.page.get_by_role("dialog").get_by_role("button", name="Cancel the task").click()
    await expect(tab.page.get_by_role("listitem").last).to_contain_text("Cancelled", timeout=LIMIT)
    await tab.close()
    tab = await stage.open(f"/queues/{SCRAPS}")
    await _is(_cell(tab, "Tasks", tasks[1], "state"), "queued")
    await tab.page.get_by_role("button", name="Throw away").click()
    dialog = tab.page.get_by_role("dialog")
    await dialog.get_by_text("What waits").click()
    go = dialog.get_by_role("button", name="Throw away")
    await dialog.get_by_label(f"Type {SCRAPS} to go on").fill("scrap")
    await expect(go).to_be_disabled(timeout=LIMIT)
    await dialog.get_by_label(f"Type {SCRAPS} to go on").fill(SCRAPS)
    await expect(go).to_be_enabled(timeout=LIMIT)
    await go.click()
    for each in tasks[1:]:
        await _is(_cell(tab, "Tasks", each, "state"), "cancelled")
    await tab.close()


async def _shows_a_topic_and_its_dead_letters(stage: Stage, api: MessagingApi) -> None:
    await api.publish({"topic": "dead-letters.news.clerk", "data": {"what": EVIL}, "type": "news.lost"})
    tab = await stage.open("/topics/news")
    await _is(_cell(tab, "Groups", "news/clerk", "lag"), "0")
    await tab.seen("There are none among the last 200.")
    await tab.page.get_by_role("link", name="All in dead-letters").click()
    letter = tab.page.locator('.ag-row [col-id="group"]').filter(has_text="clerk")
    await letter.first.click()
    await tab.seen("news.lost")
    await tab.close()


async def _shows_viewers_no_more_than_they_may_see(stage: Stage) -> None:
    tab = await stage.open("/queues/orders", scope=Scope.VIEWER)
    await _is(_cell(tab, "Tasks", stage.sent.tasks[0], "state"), "succeeded")
    await tab.seen("an operator's token shows")
    for name in ("Redrive all", "Throw away"):
        assert not await tab.page.get_by_role("button", name=name).count()
    await tab.close()
    tab = await stage.open("/tasks", scope=Scope.VIEWER)
    await tab.page.get_by_label("Id of a task").fill(stage.sent.tasks[0])
    await tab.page.get_by_label("Id of a task").press("Enter")
    await expect(tab.page.get_by_role("heading", level=1)).to_contain_text(stage.sent.tasks[0], timeout=LIMIT)
    assert not await tab.page.get_by_role("button", name="Cancel the task").count()
    await tab.close()


def _cell(tab: Tab, table: str, key: str, column: str) -> Locator:
    region = tab.page.get_by_role("region", name=table, exact=True)
    return region.locator(f'.ag-row[row-id="{key}"] [col-id="{column}"]')


async def _is(cell: Locator, text: str) -> None:
    await expect(cell).to_have_text(text, timeout=LIMIT)
