"""Envoy's access logs of calls to models (gRPC), by which the scheduler learns how they ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, Protocol

from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage

from weft.controlplane.llm.peers import Peer, Peers
from weft.controlplane.xds.connection import Context
from weft.errors import Unavailable
from weft.model.llm_wire import ACCESS_LOG


class Hears(Protocol):
    """Who is told."""

    async def ready(self) -> bool:
        """Wait until this replica schedules; False if another does, who is to be told instead."""
        ...

    def calls_logged(self, entries: Iterable[Any], peer: Peer) -> None:
        """Entries of ACCESS_LOG, which came together."""
        ...

    def attempt_logged(self, entry: Any, peer: Peer) -> None:
        """An entry of ATTEMPT_LOG."""
        ...


class Reporting:
    """Reads these logs. Their streams stay open for as long as this replica schedules."""

    def __init__(self, hears: Hears, peers: Peers) -> None:
        self._hears = hears
        self._peers = peers
        self._streams: set[asyncio.Task[Any]] = set()
        self._hung_up: set[asyncio.Task[Any]] = set()

    def hang_up(self) -> None:
        """End all streams: sidecars open new ones, to the replica that schedules by then."""
        for each in self._streams:
            self._hung_up.add(each)
            each.cancel()

    async def read(
        self, name: str, messages: AsyncIterator[StreamAccessLogsMessage], context: Context
    ) -> None:
        """Read what one sidecar tells, until it ends, or another replica is to be told."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._streams.add(task)
        try:
            await self._take(name, messages, context)
        except asyncio.CancelledError:
            if task not in self._hung_up:
                raise
            raise Unavailable(_ELSEWHERE) from None
        finally:
            self._streams.discard(task)
            self._hung_up.discard(task)

    async def _take(
        self, name: str, messages: AsyncIterator[StreamAccessLogsMessage], context: Context
    ) -> None:
        async for message in messages:
            peer = self._peers.peer(context)
            if not await self._hears.ready():
                raise Unavailable(_ELSEWHERE)
            if name == ACCESS_LOG:
                self._hears.calls_logged(message.http_logs.log_entry, peer)
            else:
                for entry in message.http_logs.log_entry:
                    self._hears.attempt_logged(entry, peer)


_ELSEWHERE: Final = "another replica schedules calls to models"
