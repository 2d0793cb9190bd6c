"""What all pages have in common: getting in and out, the frame, and who may attach to a page."""

from __future__ import annotations

import asyncio
import json
import re
from html import unescape
from typing import Any

import httpx
import websockets
from playwright.async_api import BrowserContext, expect
from tests.e2e.dashboard.browser import LIMIT, Tab
from tests.e2e.dashboard.stage import Stage

from weft.dashboard.surface import MAX_PAGES_OF_VIEWER
from weft.model.operator import Scope

_AT_A_TIME = 8
"""Pages that are asked for at once."""

_MENU = (
    "Mesh",
    "Agents",
    "Traffic",
    "Tasks and events",
    "Models",
    "Tools",
    "Traces",
    "Conversations",
    "Policy",
)


async def check(stage: Stage) -> None:
    """All of it."""
    await _code(stage)
    await _revoked(stage)
    await _frame(stage)
    await _narrow(stage)
    await _guarded(stage)
    await _bounded(stage)
    await _over_tls(stage)


async def _code(stage: Stage) -> None:
    """The code of `weft dashboard` signs in, once, and leaves no trace in the address."""
    made = await stage.mesh.api.ask("POST", "/v1/dashboard/codes", {})
    context = await stage.browser.context()
    tab = await stage.browser.tab(context, stage.url)
    await tab.page.goto(f"{stage.url}/login?code={made['code']}")
    await expect(tab.page.get_by_role("heading", level=1)).to_have_text("Mesh", timeout=LIMIT)
    assert "code" not in tab.page.url
    await tab.page.get_by_label("Sign out").click()
    await expect(tab.page.get_by_label("Token")).to_be_visible(timeout=LIMIT)
    await tab.page.goto(f"{stage.url}/login?code={made['code']}")
    await tab.seen("the code was used before")
    await tab.close()
    await context.close()


async def _revoked(stage: Stage) -> None:
    """A page that is open ends when its token is revoked."""
    made = await stage.mesh.api.make_token("guest", Scope.VIEWER, 3600.0)
    tab = await stage.browser.open(stage.url, "/agents", str(made["token"]), dark=False, width=1280)
    await tab.row("planner.planner-1", "healthy")
    await stage.mesh.api.revoke_token("guest")
    await tab.page.wait_for_url("**/dashboard/login?ended", timeout=LIMIT)
    await tab.seen("You were signed out")
    await tab.close()


async def _frame(stage: Stage) -> None:
    """Keyboard, titles, and the theme, which is remembered."""
    tab = await stage.open("/nowhere")
    await tab.seen("There is no such page.")
    page = tab.page
    await page.goto(f"{stage.url}/agents")
    await expect(page).to_have_title(re.compile("^Agents · weft.local · Weft$"))
    await tab.row("planner.planner-1", "healthy")
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the content")).to_be_in_viewport()
    reached = []
    for _ in range(3 + len(_MENU)):
        await page.keyboard.press("Tab")
        style = "getComputedStyle(document.activeElement).outlineStyle"
        assert await page.evaluate(style) == "solid"
        reached.append(await page.evaluate("document.activeElement.innerText"))
    assert tuple(each.splitlines()[-1].strip() for each in reached[3:]) == _MENU
    await page.get_by_label("Theme: system").click()
    await page.get_by_label("Theme: light").click()
    await expect(page.locator("body.body--dark")).to_be_visible()
    await page.reload()
    await expect(page.locator("body.body--dark")).to_be_visible()
    await page.get_by_label("Theme: dark").click()
    await expect(page.locator("body.body--light")).to_be_visible()
    assert await page.evaluate("window.socket.io.engine.transport.name") == "websocket"
    await tab.close()


async def _narrow(stage: Stage) -> None:
    """The menu is a drawer, which Escape closes."""
    tab = await stage.open("/", width=390)
    menu = tab.page.locator(".weft-drawer a").first
    await expect(menu).not_to_be_in_viewport()
    await tab.page.get_by_label("Menu").click()
    await expect(menu).to_be_in_viewport()
    await tab.page.keyboard.press("Escape")
    await expect(menu).not_to_be_in_viewport()
    await tab.fits()
    await tab.close()


async def _guarded(stage: Stage) -> None:
    """Nobody attaches to another's page, nor speaks for it: without a session, nor with one of his own."""
    victim = await stage.open("/agents")
    await victim.row("planner.planner-1", "healthy")
    page_id = str(await victim.page.evaluate("window.clientId"))
    await stage.open("/agents", scope=Scope.VIEWER)
    [mallory] = stage.browser.contexts_of(stage.tokens[Scope.VIEWER])
    cookie = await _cookie(mallory, stage.url)
    assert await _attached(stage, page_id, "") == "refused"
    assert await _attached(stage, page_id, cookie, origin="http://evil.example") == "refused"
    assert await _attached(stage, page_id, cookie) == "rejected"
    own, _ = await _page(mallory, stage.url)
    button, listener = await _theme_button(victim)
    event = {"id": button, "client_id": page_id, "listener_id": listener, "args": []}
    assert await _attached(stage, own, cookie, say=["event", event]) == "attached"
    await victim.page.wait_for_timeout(500)  # nothing is to happen, for which there is nothing to wait
    await expect(victim.page.get_by_label("Theme: system")).to_be_visible()
    await victim.close()


async def _bounded(stage: Stage) -> None:
    """Nobody has the control plane keep pages without end; others open theirs meanwhile."""
    base = stage.url.removesuffix("/dashboard")
    token = (await stage.mesh.api.make_token("flood", Scope.VIEWER, 3600.0))["token"]
    async with httpx.AsyncClient(trust_env=False, timeout=60) as flood:
        await flood.post(f"{stage.url}/login", data={"token": token}, headers={"origin": base})
        answers: list[int] = []
        # Each is kept for a minute, so that on a slow machine the first ones go before the last ones come.
        while 429 not in answers and len(answers) < 4 * MAX_PAGES_OF_VIEWER:
            some = await asyncio.gather(*(flood.get(f"{stage.url}/audit") for _ in range(_AT_A_TIME)))
            answers += [each.status_code for each in some]
    assert set(answers) == {200, 429}
    assert answers.count(200) >= MAX_PAGES_OF_VIEWER
    other = await stage.open("/agents")
    await other.row("planner.planner-1", "healthy")
    await other.close()


async def _theme_button(victim: Tab) -> tuple[int, str]:
    """The element of the switch of themes, and who listens to it: what only its own tab is told."""
    html = await (await victim.page.context.request.get(victim.page.url)).text()
    found = re.search(r"String\.raw`(.*?)`", html, re.DOTALL)
    assert found
    elements: dict[str, Any] = json.loads(unescape(found[1]))
    [(number, element)] = [
        (number, each)
        for number, each in elements.items()
        if str(each.get("props", {}).get("aria-label", "")).startswith("Theme")
    ]
    return int(number), str(element["events"][0]["listener_id"])


async def _page(context: BrowserContext, url: str) -> tuple[str, str]:
    """A page of one's own that no browser has attached to: its id, and its HTML."""
    html = await (await context.request.get(f"{url}/agents")).text()
    found = re.search(r"client_id\W+([0-9a-f-]{36})", html)
    assert found
    return found[1], html


async def _attached(
    stage: Stage, page_id: str, cookie: str, *, origin: str | None = None, say: list[Any] | None = None
) -> str:
    """What comes of connecting to a page: refused at the door, rejected, or attached."""
    base = stage.url.removesuffix("/dashboard")
    query = f"client_id={page_id}&implicit_handshake=true&tab_id=t&document_id=d&next_message_id=0"
    way = f"{stage.url.replace('http:', 'ws:')}/_nicegui_ws/socket.io/?{query}&EIO=4&transport=websocket"
    try:
        async with websockets.connect(
            way, origin=websockets.Origin(origin or base), additional_headers={"cookie": cookie}, proxy=None
        ) as socket:
            await socket.recv()
            await socket.send("40")
            answer = str(await socket.recv())
            if say is not None:
                await socket.send(f"42{json.dumps(say)}")
                await socket.send(f"42{json.dumps(['ack', {'client_id': page_id, 'next_message_id': 0}])}")
            return "attached" if answer.startswith("40") else "rejected"
    except websockets.InvalidStatus as error:
        return "refused" if error.response.status_code == 403 else str(error)


async def _cookie(context: BrowserContext, url: str) -> str:
    return "; ".join(f"{each['name']}={each['value']}" for each in await context.cookies(url))


async def _over_tls(stage: Stage) -> None:
    """The API's port serves it too, over TLS, with a cookie that leaves it no other way."""
    context = await stage.browser.context(believing=True)
    url = f"{stage.mesh.local.api_url}/dashboard"
    tab = await stage.browser.tab(context, url)
    await tab.page.goto(f"{url}/")
    await tab.page.get_by_label("Token").fill(stage.tokens[Scope.VIEWER])
    await tab.page.get_by_role("button", name="Sign in").click()
    await tab.page.goto(f"{url}/agents")
    await tab.row("planner.planner-1", "healthy")
    [cookie] = [each for each in await context.cookies(url) if each["name"].startswith("__Host-weft")]
    assert cookie["secure"]
    assert cookie["httpOnly"]
    await tab.close()
    await context.close()
