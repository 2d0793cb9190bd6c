"""The pages Traffic and Routing: calls as they were sent, and a Route that is changed there."""

from __future__ import annotations

import re

from playwright.async_api import Locator, expect
from tests.e2e.dashboard.browser import LIMIT, Tab
from tests.e2e.dashboard.stage import Stage
from tests.e2e.messaging_mesh import document

from weft.model.operator import Scope

ROUTE = "to-the-vault"


async def check(stage: Stage) -> None:
    """Figures are those of what was sent; changes are looked at first, and never overwrite others'."""
    split = [{"version": "1", "weight": 9}, {"version": "2", "weight": 1}]
    route = document(
        "Route", ROUTE, destination={"type": "vault"}, rules=[{"name": "canary", "split": split}]
    )
    await stage.mesh.api.apply(route, "route.yaml")
    try:
        await _counts_what_was_sent(stage)
        await _tells_versions_and_callers(stage)
        await _shows_mistakes_at_their_line(stage)
        await _changes_a_split_after_a_look_at_it(stage)
        await _does_not_overwrite_somebody_else(stage)
        await _lets_viewers_look_only(stage)
    finally:
        await stage.mesh.api.delete("Route", ROUTE)


async def _counts_what_was_sent(stage: Stage) -> None:
    tab = await _hour(stage, "/traffic")
    for (caller, callee), sent in stage.sent.calls.items():
        if caller == "planner" or callee == "planner":
            await _is(_cell(tab, f"agent/{callee}/", "calls"), f"{sent:,}")
    await expect(tab.page.locator(".weft-chart svg")).to_have_count(4, timeout=LIMIT)
    await tab.row(f"Route/{ROUTE}", "vault", "version 1 90%, version 2 10%")
    await tab.close()
    tab = await _hour(stage, "/traffic", dark=True, width=390)
    await _is(_cell(tab, "agent/summarizer/", "calls"), f"{stage.sent.calls['planner', 'summarizer']:,}")
    await tab.fits()
    await tab.close()


async def _tells_versions_and_callers(stage: Stage) -> None:
    tab = await _hour(stage, "/traffic?destination=summarizer")
    await _is(_cell(tab, "agent/summarizer/2", "calls"), f"{stage.sent.calls['planner', 'summarizer']:,}")
    await expect(tab.page.get_by_role("heading", level=1)).to_have_text("Traffic to summarizer")
    failed = stage.sent.failed["planner", "summarizer"] / stage.sent.calls["planner", "summarizer"]
    await _is(_cell(tab, "agent/summarizer/2", "errorShare"), f"{100 * failed:.1f} %")
    async with stage.busy():  # it shows the last 30 seconds
        await tab.row("planner/agent/2/default", "planner")
    await tab.close()


async def _hour(stage: Stage, path: str, *, dark: bool = False, width: int = 1280) -> Tab:
    """A page of traffic that shows the last hour, in which everything was sent."""
    tab = await stage.open(path, dark=dark, width=width)
    await tab.page.get_by_role("button", name="1 h", exact=True).click()
    return tab


async def _shows_mistakes_at_their_line(stage: Stage) -> None:
    tab = await stage.open(f"/routing/Route/{ROUTE}")
    text = tab.page.get_by_label("Manifest")
    await expect(text).to_have_value(re.compile("weight: 9"), timeout=LIMIT)
    declared = await text.input_value()
    line = next(number for number, each in enumerate(declared.splitlines(), 1) if "weight: 9" in each)
    await text.fill(declared.replace("weight: 9", "weight: many"))
    await _preview(tab)
    await tab.page.get_by_role("button", name=f"line {line}").click()
    await tab.page.wait_for_function(
        "() => { const a = document.activeElement;"
        " return (a.value || '').slice(a.selectionStart, a.selectionEnd).trim() === 'weight: many'; }"
    )
    # What only the API finds, as it concerns what else is declared.
    await text.fill(declared.replace("type: vault", "type: Not_A_Type"))
    await _preview(tab)
    await tab.seen("spec.destination.type")
    # What was typed is there though the page had to be loaded anew.
    await tab.page.reload()
    await tab.live()
    await tab.page.get_by_role("button", name="Take it up").click()
    await expect(text).to_have_value(re.compile("type: Not_A_Type"), timeout=LIMIT)
    await _preview(tab)
    await tab.seen("spec.destination.type")
    await tab.close()


async def _changes_a_split_after_a_look_at_it(stage: Stage) -> None:
    tab = await stage.open(f"/routing/Route/{ROUTE}")
    await tab.page.get_by_label("version 2").fill("3")
    await tab.page.get_by_role("button", name="Show what would change").first.click()
    shown = tab.page.locator(".weft-difference")
    await expect(shown).to_contain_text("-       weight: 1", timeout=LIMIT)
    await expect(shown).to_contain_text("+       weight: 3", timeout=LIMIT)
    assert await _weights(stage) == [9, 1]
    await _apply(tab)
    await expect(shown).to_have_count(0, timeout=LIMIT)
    assert await _weights(stage) == [9, 3]
    await tab.close()


async def _does_not_overwrite_somebody_else(stage: Stage) -> None:
    tab = await stage.open(f"/routing/Route/{ROUTE}")
    await expect(tab.page.get_by_label("version 2")).to_have_value("3", timeout=LIMIT)
    resource = await stage.mesh.api.resource("Route", ROUTE)
    parts = resource["spec"]["rules"][0]["split"]
    parts[1]["weight"] = 5
    await stage.mesh.api.apply(document("Route", ROUTE, **resource["spec"]), "other.yaml")
    await tab.page.get_by_label("version 2").fill("7")
    await tab.page.get_by_role("button", name="Show what would change").first.click()
    await _apply(tab)
    await tab.seen("Somebody else has changed it since")
    assert await _weights(stage) == [9, 5]
    await tab.page.get_by_role("button", name="Load it anew").click()
    await expect(tab.page.get_by_label("version 2")).to_have_value("5", timeout=LIMIT)
    await tab.close()


async def _lets_viewers_look_only(stage: Stage) -> None:
    tab = await stage.open(f"/routing/Route/{ROUTE}", scope=Scope.VIEWER, width=390)
    await tab.seen("Your token lets you look at it, not change it.")
    await tab.seen("version 1 64%, version 2 36%")
    assert not await tab.page.get_by_role("button", name="Show what would change").count()
    assert await tab.page.get_by_label("Manifest").get_attribute("readonly") is not None
    await tab.fits()
    await tab.close()


async def _preview(tab: Tab) -> None:
    await tab.page.get_by_role("button", name="Show what would change").last.click()


async def _apply(tab: Tab) -> None:
    await tab.page.get_by_role("button", name="Apply").click()
    await tab.page.get_by_role("dialog").get_by_role("button", name="Apply").click()


async def _weights(stage: Stage) -> list[int]:
    resource = await stage.mesh.api.resource("Route", ROUTE)
    return [each["weight"] for each in resource["spec"]["rules"][0]["split"]]


def _cell(tab: Tab, key: str, column: str) -> Locator:
    return tab.page.locator(f'.ag-row[row-id="{key}"] [col-id="{column}"]')


async def _is(cell: Locator, text: str) -> None:
    await expect(cell).to_have_text(text, timeout=LIMIT)
