"""What looking costs: ten browsers at the dashboard of a mesh of a thousand agents."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from benchmarks.dashboard_server import TOKEN
from benchmarks.processes import cpu_seconds, pss_megabytes
from benchmarks.progress import step
from benchmarks.report import Figure, Result
from playwright.async_api import Browser, Page, async_playwright

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.errors import InvalidRequest

AGENTS, RATE, BROWSERS = 1000, 1000, 10
"""Instances, calls a second that they report, and pages that are open."""

_PAGES = ("/", "/agents")
_LIMIT = 120.0
_SETTLED = 3.0


async def measure(*, quick: bool = False) -> Result:
    """CPU and memory of the server without browsers, with one, with ten; and how soon there is something."""
    seconds = 5.0 if quick else 20.0
    async with _server() as (url, pid), _chromium() as chromium:
        step("dashboard: nobody looks")
        idle, small = await _cpu(pid, seconds), pss_megabytes(pid)
        step("dashboard: the first page")
        page = await _signed_in(chromium, url)
        cold = await _painted(page, f"{url}/agents")
        warm = await _painted(page, f"{url}/agents")
        await asyncio.sleep(_SETTLED)
        one = await _cpu(pid, seconds)
        step(f"dashboard: {BROWSERS} pages")
        for number in range(BROWSERS - 1):
            await _painted(await _signed_in(chromium, url), f"{url}{_PAGES[number % len(_PAGES)]}")
        await asyncio.sleep(_SETTLED)
        ten, large = await _cpu(pid, seconds), pss_megabytes(pid)
    figures = (
        Figure("server CPU, one page open", one, "%", idle, "nobody looks"),
        Figure(f"server CPU, {BROWSERS} pages open", ten, "%", idle, "nobody looks"),
        Figure(f"server memory, {BROWSERS} pages open", large, "MB", small, "nobody looks"),
        Figure("first page until its rows are there, empty cache", cold, "s"),
        Figure("the same page again", warm, "s"),
    )
    notes = (
        f"{AGENTS:,} instances of twenty types, which report {RATE:,} calls a second; pages Mesh and Agents",
        "one process with the API, its store in memory; the browser shares the machine",
    )
    return Result("The dashboard", figures, notes)


@asynccontextmanager
async def _server() -> AsyncIterator[tuple[str, int]]:
    with reserve_port("127.0.0.1") as reserved:
        port = reserved.port
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.dashboard_server", str(port), str(AGENTS), str(RATE)
    )
    url = f"http://127.0.0.1:{port}/dashboard"
    try:
        async with asyncio.timeout(_LIMIT), httpx.AsyncClient(trust_env=False) as http:
            await until(lambda: _serves(http, f"{url}/login"))
        await asyncio.sleep(_SETTLED)
        yield url, process.pid
    finally:
        process.terminate()
        await process.wait()


async def _serves(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).is_success
    except httpx.TransportError:
        return False


@asynccontextmanager
async def _chromium() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        raise InvalidRequest("there is no chromium on this machine: the benchmark of the dashboard needs one")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            await chromium.close()


async def _signed_in(chromium: Browser, url: str) -> Page:
    page = await (await chromium.new_context()).new_page()
    page.set_default_timeout(_LIMIT * 1000)
    await page.goto(f"{url}/login")
    await page.get_by_label("Token").fill(TOKEN)
    await page.get_by_role("button").click()
    await page.get_by_role("main").wait_for()
    return page


async def _painted(page: Page, url: str) -> float:
    """Seconds until the page has rows."""
    began = time.perf_counter()
    await page.goto(url, wait_until="commit")
    await page.locator(".ag-row").first.wait_for()
    return time.perf_counter() - began


async def _cpu(pid: int, seconds: float) -> float:
    """Percent of one processor that a process uses."""
    before, began = cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    return 100 * (cpu_seconds(pid) - before) / (time.perf_counter() - began)
