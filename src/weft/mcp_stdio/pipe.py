"""The standard streams of a server, as the transport of an MCP client: one message a line."""

from __future__ import annotations

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from weft.aio.cancellation import end

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Of one message; who writes a longer line is not listened to any more."""

_CHUNK = 64 * 1024
_MAX_SHOWN = 200
_MAX_COMPLAINTS = 10
"""About lines that are no messages: common libraries print what they should log."""

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]


class LineTooLong(Exception):
    """A server's line is longer than MAX_LINE_BYTES."""


@asynccontextmanager
async def over_pipes(
    stdout: StreamReader, stdin: StreamWriter, ended: asyncio.Event
) -> AsyncIterator[tuple[Incoming, Outgoing]]:
    """For the block, what an MCP client reads from and writes to; `ended` is set when one of it is over."""
    heard, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, said = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.create_task(_read(stdout, heard), name="read from the server"),
        asyncio.create_task(_write(said, stdin, heard), name="write to the server"),
    ]
    for task in tasks:
        task.add_done_callback(lambda _: ended.set())
    try:
        yield incoming, outgoing
    finally:
        await end(tasks)
        for stream in (heard, incoming, outgoing, said):
            stream.close()


async def lines(stdout: StreamReader, *, limit: int = MAX_LINE_BYTES) -> AsyncIterator[bytes]:
    """The lines of a stream that are not empty. Raises LineTooLong for one of more than `limit` bytes."""
    unfinished: list[bytes] = []
    size = 0
    while chunk := await stdout.read(_CHUNK):
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            joined = b"".join([*unfinished, line]).strip()
            unfinished, size = [], 0
            if joined:
                yield joined
        unfinished.append(rest)
        size += len(rest)
        if size > limit:
            raise LineTooLong(f"the server wrote a line of more than {limit} bytes")


async def _read(stdout: StreamReader, heard: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    complaints = 0
    async with heard:
        try:
            async for line in lines(stdout):
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    complaints += 1
                    if complaints <= _MAX_COMPLAINTS:
                        logger.warning("the server wrote what is no message: %r", line[:_MAX_SHOWN])
                    continue
                await heard.send(SessionMessage(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # nobody listens any more
        except (LineTooLong, OSError):
            logger.exception("the server cannot be listened to any more")


async def _write(
    said: MemoryObjectReceiveStream[SessionMessage],
    stdin: StreamWriter,
    heard: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    try:
        async for each in said:
            stdin.write(each.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await stdin.drain()
    except OSError:
        # Who does not read any more answers no more either.
        heard.close()
