"""The page Mesh."""

from __future__ import annotations

from playwright.async_api import expect
from tests.e2e.dashboard.stage import Stage


async def check(stage: Stage) -> None:
    """Everybody who calls or is called is drawn, and the table says how often."""
    tab = await stage.open("/")
    for node in ("agent/planner", "agent/summarizer", "agent/vault", "caller/operator/local", "queue/orders"):
        await expect(tab.page.locator(f'[data-node="{node}"]')).to_be_visible(timeout=60_000)
    await tab.row("caller/operator/local agent/planner", "planner")
    await tab.close()
