"""What a kubelet asks a process of Weft's for: whether it lives, and whether it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from weft.errors import Unavailable

CHECK_LIMIT = 4.0
"""Seconds that a check may take; kubelets are told to wait for five."""

Check = Callable[[], Awaitable[str]]
"""Says what is wrong, in a few words; nothing, if nothing is."""


Page = Callable[[], web.Response]
"""Makes an answer of its own."""


@asynccontextmanager
async def serving_health(
    host: str, port: int, checks: Mapping[str, Check], pages: Mapping[str, Page] | None = None
) -> AsyncIterator[None]:
    """Within the context, answer GET at the paths of `checks` (`/livez`): 200, or 503 with what is wrong.

    At the paths of `pages`, as they say. For kubelets, so without TLS and for whoever asks: a check tells
    nothing that must not be known. Raises Unavailable if `port` is taken.
    """
    application = web.Application(client_max_size=1024)
    for path, check in checks.items():
        application.router.add_get(path, _answering(check))
    for path, page in (pages or {}).items():
        application.router.add_get(path, _showing(page))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise Unavailable(
                f"{host}:{port}, where health is to be asked for, cannot be listened at "
                f"({error.strerror or error}): choose another --health-port"
            ) from error
        yield
    finally:
        await runner.cleanup()


def _answering(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(CHECK_LIMIT):
                problem = await check()
        except TimeoutError:
            problem = f"no answer within {CHECK_LIMIT:g} s"
        return web.Response(status=503, text=f"{problem}\n") if problem else web.Response(text="ok\n")

    return answer


def _showing(page: Page) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def show(_request: web.Request) -> web.Response:
        return page()

    return show
