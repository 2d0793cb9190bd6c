"""The page Models: what was asked of models, what budgets have left, and a provider that is down."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
from playwright.async_api import Locator, expect
from tests.e2e.dashboard.browser import LIMIT, Tab
from tests.e2e.dashboard.stage import Stage
from tests.e2e.messaging_mesh import document, manifest

from weft.aio.ports import reserve_port

MODEL = "dead-model"
BUDGET = "daily-tokens"
TOKENS = 1_000_000


async def check(stage: Stage) -> None:
    """Figures are those of what was asked; what is wrong is said."""
    with reserve_port("127.0.0.1") as held:  # where nobody listens
        provider = {"name": "gone", "url": f"http://127.0.0.1:{held.port}/v1"}
        resources = manifest(
            document("Budget", BUDGET, scope="tenant", period="day", tokens=TOKENS),
            document("ModelPool", MODEL, scheduling={"maxWait": "1s"}, providers=[provider]),
        )
        await stage.mesh.api.apply(resources, "models.yaml")
        try:
            await _shows_what_was_used(stage)
            await _says_that_a_provider_is_down(stage)
        finally:
            await stage.mesh.api.delete("ModelPool", MODEL)
            await stage.mesh.api.delete("Budget", BUDGET)


async def _shows_what_was_used(stage: Stage) -> None:
    asked = str(sum(stage.sent.models.values()))
    tab = await stage.open("/llm")
    await _is(_cell(tab, "planner", "calls"), asked)
    await _is(_cell(tab, "planner", "failed"), "0")
    await expect(_cell(tab, "planner", "tokens")).to_have_text(re.compile(r"^[1-9][\d,]*$"), timeout=LIMIT)
    await tab.page.get_by_role("button", name="Cost").click()
    await tab.page.get_by_role("button", name="30 days").click()
    await _is(_cell(tab, "planner", "calls"), asked)
    await expect(tab.page.locator(".weft-chart svg")).to_have_count(1, timeout=LIMIT)
    budget = tab.page.locator(".ag-row").filter(has_text=BUDGET)
    await expect(budget).to_contain_text("1.0M tokens", timeout=LIMIT)
    await tab.close()


async def _says_that_a_provider_is_down(stage: Stage) -> None:
    for dark, width in ((False, 1280), (True, 390)):
        tab = await stage.open("/llm", dark=dark, width=width)
        async with _asking(stage):
            await tab.seen(f"Pool {MODEL}: none of its providers is sent anything now.")
            await expect(_cell(tab, MODEL, "state")).to_have_text("down", timeout=LIMIT)
            await expect(_cell(tab, f"{MODEL}/gone", "health")).to_contain_text("broken", timeout=LIMIT)
        await tab.fits()
        await tab.close()


@asynccontextmanager
async def _asking(stage: Stage) -> AsyncIterator[None]:
    """Within the context the model is asked for again and again."""

    async def ask() -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
        async with httpx.AsyncClient(proxy=stage.mesh.local.proxy_url, trust_env=False, timeout=30) as http:
            while True:
                with suppress(httpx.HTTPError):
                    answer = await http.post("http://llm.mesh/v1/chat/completions", json=body)
                    assert answer.status_code >= 500 or answer.status_code == 429, answer.text
                await asyncio.sleep(0.2)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking


def _cell(tab: Tab, key: str, column: str) -> Locator:
    return tab.page.locator(f'.ag-row[row-id="{key}"] [col-id="{column}"]')


async def _is(cell: Locator, text: str) -> None:
    await expect(cell).to_have_text(text, timeout=LIMIT)
