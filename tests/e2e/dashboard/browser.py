"""Chromium, as people look at the dashboard with it. Every tab notes what must never happen."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser as Chromium
from playwright.async_api import BrowserContext, Dialog, Page, Request, async_playwright, expect

LIMIT = 60_000.0
"""Milliseconds in which anything waited for happens."""

HEIGHT = 800


@dataclass
class Tab:
    """A page that is open. Close it when done."""

    page: Page
    origin: str
    trouble: list[str] = field(default_factory=list)
    """Dialogs, errors of scripts, requests that left for elsewhere."""

    async def seen(self, text: str) -> None:
        """Wait until some text is to be seen."""
        await expect(self.page.get_by_text(text).locator("visible=true").first).to_be_visible(timeout=LIMIT)

    async def live(self) -> None:
        """Wait until the page takes what is typed: before that, nothing can be focused."""
        content = self.page.locator(".nicegui-content:not([inert])")
        await expect(content).to_be_attached(timeout=LIMIT)
        await expect(content.get_by_role("heading", level=1)).to_be_visible(timeout=LIMIT)

    async def row(self, key: str, *texts: str) -> None:
        """Wait until a grid has the row `key`, with all these texts in it."""
        row = self.page.locator(f'.ag-row[row-id="{key}"]')
        for each in texts:
            await expect(row).to_contain_text(each, timeout=LIMIT)

    async def cell(self, key: str, field_: str) -> str:
        """What stands in a row's column."""
        return await self.page.locator(f'.ag-row[row-id="{key}"] [col-id="{field_}"]').inner_text(
            timeout=LIMIT
        )

    async def safe(self) -> None:
        """Fail if anything happened that must not: a dialog, an error, a script, a request elsewhere."""
        assert not self.trouble, self.trouble
        assert await self.page.evaluate("window.PWNED === undefined")
        assert not await self.page.locator('img[src="x"]').count()

    async def fits(self) -> None:
        """Fail if the page is wider than its window."""
        wide, window = await self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window, f"{self.page.url} is {wide} wide in a window of {window}"

    async def close(self) -> None:
        """Close it, if nothing happened that must not."""
        await self.safe()
        await self.page.close()


class Browser:
    """One Chromium; a context for each token, theme and width, signed in once."""

    def __init__(self, chromium: Chromium) -> None:
        self._chromium = chromium
        self._contexts: dict[tuple[str, bool, int], BrowserContext] = {}

    async def open(self, url: str, path: str, token: str, *, dark: bool, width: int) -> Tab:
        """A tab at `path` of the dashboard at `url`."""
        key = (token, dark, width)
        if key not in self._contexts:
            self._contexts[key] = await self.context(dark=dark, width=width)
            tab = await self.tab(self._contexts[key], url)
            await tab.page.goto(f"{url}/login")
            await tab.page.get_by_label("Token").fill(token)
            await tab.page.get_by_role("button", name="Sign in").click()
            await expect(tab.page.get_by_role("main")).to_be_visible(timeout=LIMIT)
            await tab.close()
        tab = await self.tab(self._contexts[key], url)
        await tab.page.goto(f"{url}{path}")
        await tab.live()
        return tab

    def contexts_of(self, token: str) -> list[BrowserContext]:
        """The contexts in which whoever has `token` is signed in."""
        return [each for key, each in self._contexts.items() if key[0] == token]

    async def context(
        self, *, dark: bool = False, width: int = 1280, believing: bool = False
    ) -> BrowserContext:
        """Somebody's browser without cookies; `believing` does not ask whose a server's certificate is."""
        context = await self._chromium.new_context(
            viewport={"width": width, "height": HEIGHT},
            color_scheme="dark" if dark else "light",
            ignore_https_errors=believing,
        )
        context.set_default_timeout(LIMIT)
        return context

    async def tab(self, context: BrowserContext, url: str) -> Tab:
        """An empty tab, which notes what must not happen while it is at `url`."""
        tab = Tab(await context.new_page(), f"{urlsplit(url).scheme}://{urlsplit(url).netloc}")

        async def dismissed(dialog: Dialog) -> None:
            tab.trouble.append(f"dialog {dialog.message}")
            await dialog.dismiss()

        def asked(request: Request) -> None:
            if not request.url.startswith((f"{tab.origin}/", "data:", "blob:")):
                tab.trouble.append(f"request {request.url}")

        tab.page.on("dialog", dismissed)
        tab.page.on("request", asked)
        tab.page.on("pageerror", lambda error: tab.trouble.append(f"error {error}"))
        return tab


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Chromium of this machine; tests that need it are left out where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed (Debian: chromium fonts-dejavu-core)")
    expect.set_options(timeout=LIMIT)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield Browser(chromium)
        finally:
            await chromium.close()
