"""The HTTPS server that API servers ask. Whoever reaches it may ask: an answer changes nothing by itself."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from weft.errors import InvalidRequest, Unavailable
from weft.kubernetes.webhook.admission import (
    MAX_REVIEW_BYTES,
    AdmissionRequest,
    Verdict,
    read_review,
    write_review,
)
from weft.kubernetes.webhook.metrics import ReviewMetrics

logger = logging.getLogger(__name__)

READ_TIMEOUT: Final = 5.0
"""Seconds in which a question must have come whole: then no API server waits any more."""

READ_AT_ONCE: Final = 16
"""Questions that are read at the same time, and others refused: what they take of the memory has a bound."""

ANSWERED_AT_ONCE: Final = 4
"""Questions that are answered at the same time, while others wait."""

_KEEP_ALIVE: Final = 90.0
"""Seconds that a connection may lie idle after a question: API servers ask again."""

_SHUTDOWN: Final = 5.0
"""Seconds that open questions have when the server stops."""

Review = Callable[[AdmissionRequest], Awaitable[Verdict]]
"""Answers a question. Raises InvalidRequest where it is not for that."""


@asynccontextmanager
async def serving_webhooks(
    host: str, port: int, tls: ssl.SSLContext, reviews: Mapping[str, Review], metrics: ReviewMetrics
) -> AsyncIterator[int]:
    """Within the context, answer AdmissionReviews at the paths of `reviews`; yields the port.

    Raises Unavailable if `port` is taken.
    """
    application = web.Application(client_max_size=MAX_REVIEW_BYTES)
    turns = _Turns(asyncio.Semaphore(READ_AT_ONCE), asyncio.Semaphore(ANSWERED_AT_ONCE))
    for path, review in reviews.items():
        application.router.add_post(path, _Answering(path, review, turns, metrics).answer)
    runner = web.AppRunner(
        application, access_log=None, shutdown_timeout=_SHUTDOWN, keepalive_timeout=_KEEP_ALIVE
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
        except OSError as error:
            raise Unavailable(
                f"{host}:{port}, where webhooks are to be asked, cannot be listened at "
                f"({error.strerror or error}): choose another --port"
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True)
class _Turns:
    reading: asyncio.Semaphore
    answering: asyncio.Semaphore


class _Answering:
    """Answers at one path."""

    def __init__(self, path: str, review: Review, turns: _Turns, metrics: ReviewMetrics) -> None:
        self._path = path
        self._review = review
        self._turns = turns
        self._metrics = metrics

    async def answer(self, request: web.Request) -> web.Response:
        """The answer to what may be a question."""
        try:
            asked, verdict = await self._reviewed(await self._content(request))
        except web.HTTPException:
            self._metrics.reviewed(self._path, None)
            raise
        self._metrics.reviewed(self._path, verdict)
        _log(self._path, asked, verdict)
        return web.json_response(write_review(asked, verdict))

    async def _content(self, request: web.Request) -> bytes:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="an AdmissionReview is application/json\n")
        if self._turns.reading.locked():
            raise web.HTTPServiceUnavailable(text="too many are being asked at once\n")
        try:
            async with self._turns.reading, asyncio.timeout(READ_TIMEOUT):
                return await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"not sent within {READ_TIMEOUT:g} s\n") from None

    async def _reviewed(self, content: bytes) -> tuple[AdmissionRequest, Verdict]:
        try:
            async with self._turns.answering:
                # In a thread: a large object takes a good part of a second.
                asked = await asyncio.to_thread(read_review, content)
                return asked, await self._review(asked)
        except InvalidRequest as error:
            raise web.HTTPBadRequest(text=f"{error.detail}\n") from error


def _log(path: str, asked: AdmissionRequest, verdict: Verdict) -> None:
    """What became of it: no contents, which may be secret."""
    if verdict.allowed and not verdict.patch:
        return
    outcome = (
        "changed" if verdict.allowed else f"refused ({', '.join(each.reason for each in verdict.causes)})"
    )
    metadata = (asked.object or {}).get("metadata")
    generated = metadata.get("generateName") if isinstance(metadata, dict) else None
    name = f"{asked.namespace}/{asked.name or generated or '?'}"
    logger.info("%s: %s %s %s", path, asked.kind.kind, name[:300], outcome)
