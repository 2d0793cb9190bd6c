"""Push notifications: the events of an A2A task, posted to the addresses that its caller named.

By the instance that works on the turn, through its sidecar, so that Egress resources apply. Events go out in
order, each is tried some times. An instance that takes a turn over begins anew: receivers may get one twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic_core import to_json

from weft.aio.tasks import TaskOwner
from weft.errors import InvalidRequest, MeshError, NotFound, Unavailable
from weft.sdk.a2a.book import TaskBook
from weft.sdk.a2a.push_address import check_push_url
from weft.sdk.a2a.story import Snapshot, events, opening, snapshot
from weft.sdk.a2a.wire import Json
from weft.sdk.transport import Call, HttpTransport, Transport
from weft.sdk.wire import JSON

logger = logging.getLogger("weft.agent")

PAUSES = (0.5, 2.0, 8.0, 30.0)
"""Seconds between the tries of one event: there is one try more than pauses."""

TIMEOUT = 10.0
"""Seconds that a receiver has to answer."""

TOKEN_HEADER = "x-a2a-notification-token"  # noqa: S105 - a header's name

MAX_SECRET_LENGTH = 4096
MAX_ID_LENGTH = 128


def check_config(config: Json, caller: str, *, outside: bool = False) -> None:
    """Raise InvalidRequest unless events of `caller`'s task can be posted as this config says.

    `outside`: it came in by a gateway.
    """
    check_push_url(str(config.get("url", "")), caller, outside=outside)
    authentication = config.get("authentication") or {}
    secrets = [config.get("token", ""), *(authentication.get(each, "") for each in ("scheme", "credentials"))]
    if any(len(each) > MAX_SECRET_LENGTH or not _fits_header(each) for each in secrets):
        raise InvalidRequest(
            "a push notification's token and credentials are printable ASCII, "
            f"{MAX_SECRET_LENGTH} characters at most"
        )
    if len(config["id"]) > MAX_ID_LENGTH:
        raise InvalidRequest(f"the id of a push notification config has {MAX_ID_LENGTH} characters at most")


class Pushes:
    """Posts the events of tasks, in the background. To be closed."""

    def __init__(self, book: Callable[[], Awaitable[TaskBook]], transport: Callable[[], Transport]) -> None:
        """`transport` gives the way out."""
        self._book = book
        self._transport = transport
        self._owner = TaskOwner("push notifications")
        self._under_way: set[asyncio.Task[None]] | None = set()

    def begin(self, task_id: str, *, only: Collection[str] | None = None) -> None:
        """Follow a task until its turn ends, and post its events to all its addresses, or those configs'."""
        if self._under_way is None:
            return
        task = self._owner.start(self._follow(task_id, only), name=f"push of {task_id}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def drained(self, timeout: float) -> None:
        """Wait until all is posted, or for so many seconds."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout)

    async def aclose(self) -> None:
        """Stop; what was not posted yet is not."""
        self._under_way = None
        await self._owner.close()

    async def _follow(self, task_id: str, only: Collection[str] | None) -> None:
        try:
            book = await self._book()
            record = (await book.entry(task_id)).value
            configs = [each for each in record.pushes if only is None or each["id"] in only]
            if configs:
                # Who was named before the turn began gets all of it, others what comes from now on.
                begun = await (opening if only is None else snapshot)(book, record)
                await asyncio.gather(*(self._post_all(book, begun, each) for each in configs))
        except NotFound:
            return
        except MeshError as error:
            logger.warning("push notifications of task %r stop: %s", task_id, error.detail)

    async def _post_all(self, book: TaskBook, begun: Snapshot, config: Json) -> None:
        async with aclosing(_all_events(book, begun)) as all_events:
            async for event in all_events:
                await self._post(config, event)

    async def _post(self, config: Json, event: Json) -> None:
        request = _Request.of(config, event)
        for pause in (*PAUSES, None):
            try:
                async with asyncio.timeout(TIMEOUT):
                    status = await _send(self._transport(), request)
            except (MeshError, TimeoutError) as error:
                reason = str(error) or "no answer in time"
            else:
                if status < 400:
                    return
                reason = f"it answered {status}"
            if pause is None:
                logger.warning("a push notification could not be delivered to %s: %s", request.host, reason)
                return
            await asyncio.sleep(pause)


async def _all_events(book: TaskBook, begun: Snapshot) -> AsyncGenerator[Json]:
    yield {"task": begun.task}
    if begun.state.at_rest:
        return
    async with aclosing(events(book, begun, through_rests=False)) as updates:
        async for each in updates:
            yield each


@dataclass(frozen=True, slots=True)
class _Request:
    """One POST."""

    url: SplitResult
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, config: Json, event: Json) -> _Request:
        headers = {"content-type": JSON}
        if token := config.get("token"):
            headers[TOKEN_HEADER] = token
        if authentication := config.get("authentication"):
            scheme, credentials = authentication.get("scheme", ""), authentication.get("credentials", "")
            headers["authorization"] = f"{scheme} {credentials}".strip()
        return cls(urlsplit(config["url"]), headers, to_json(event))

    @property
    def host(self) -> str:
        return self.url.netloc

    @property
    def target(self) -> str:
        return (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")


async def _send(transport: Transport, request: _Request) -> int:
    """Post it; the status of the answer. Raises Unavailable, Interrupted."""
    if request.url.scheme == "https" and isinstance(transport, HttpTransport):
        return await _send_secured(transport.proxy, request)
    call = Call("POST", request.host, request.target, request.headers, request.body)
    async with transport.exchange(call) as answer:
        return answer.status


async def _send_secured(proxy: str, request: _Request) -> int:
    import httpx  # noqa: PLC0415 - what only few agents need

    try:
        async with httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=TIMEOUT) as client:
            answer = await client.post(request.url.geturl(), headers=request.headers, content=request.body)
            return answer.status_code
    except httpx.HTTPError as error:
        raise Unavailable(f"{request.host} cannot be reached ({type(error).__name__})") from error


def _fits_header(text: Any) -> bool:
    return isinstance(text, str) and text.isascii() and (not text or text.isprintable())
