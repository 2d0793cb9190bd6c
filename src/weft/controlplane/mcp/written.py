"""Entries of lists as JSON, written once, and put into answers as they are.

The SDK validates an answer as a whole, twice, and writes it anew for everybody who asks: a thousand tools
take it 50 ms, in which a control plane does nothing else. So it answers with an empty list, into which the
entries go.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Final

from pydantic import BaseModel, ValidationError
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from weft.model.offer import JsonObject

logger = logging.getLogger(__name__)

MAX_WRITTEN_BYTES: Final = 32 * 1024 * 1024
"""Size of the entries that are kept as they were written, of each kind."""

_FILLING: Final = "mcp-list"


class Writer:
    """Writes entries, each once as long as it is the same object."""

    def __init__(
        self, model: type[BaseModel], shown: Callable[[JsonObject], JsonObject] = lambda it: it
    ) -> None:
        """`model` is what the SDK takes them for; `shown` is what clients see of them."""
        self._model = model
        self._shown = shown
        self._written: dict[int, tuple[JsonObject, bytes]] = {}
        self._bytes = 0

    def write(self, definition: JsonObject) -> bytes:
        """An entry as JSON; empty if the SDK does not take it: then it is not shown."""
        known = self._written.get(id(definition))
        if known is not None:
            return known[1]
        text = self._write(self._shown(definition))
        # As long as it is kept, no other object has its id.
        self._written[id(definition)] = (definition, text)
        self._bytes += len(text)
        while self._bytes > MAX_WRITTEN_BYTES:
            _, oldest = self._written.pop(next(iter(self._written)))
            self._bytes -= len(oldest)
        return text

    def _write(self, shown: JsonObject) -> bytes:
        try:
            self._model.model_validate(shown)
        except ValidationError:
            logger.exception("%r is no %s", shown.get("name"), self._model.__name__)
            return b""
        return json.dumps(shown, separators=(",", ":"), ensure_ascii=False).encode()


def fill(scope: Scope, name: str, entries: Iterable[bytes]) -> None:
    """Have the answer to the request of `scope` show `entries` as its list `name`, which is empty as yet."""
    scope["state"][_FILLING] = (f'"{name}":['.encode(), b",".join(each for each in entries if each))


def filling(scope: Scope, send: Send) -> Send:
    """`send`, by which lists of the answer to the request of `scope` are filled."""
    start: Message | None = None

    async def sending(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and _FILLING in scope["state"]:
            start = message
            return
        if start is not None:
            opening, entries = scope["state"].pop(_FILLING)
            body = message.get("body", b"").replace(opening + b"]", opening + entries + b"]", 1)
            MutableHeaders(scope=start)["content-length"] = str(len(body))
            message, begin, start = {**message, "body": body}, start, None
            await send(begin)
        await send(message)

    return sending
