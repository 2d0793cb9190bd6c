"""Envoy's access logs of calls to models (gRPC), by which the scheduler learns how they ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, Protocol

import grpc
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from google.protobuf.message import DecodeError

from weft.controlplane.llm.peers import Peer, Peers
from weft.controlplane.xds.connection import Context
from weft.errors import Denied, InvalidRequest, Unauthenticated, Unavailable
from weft.model.llm_wire import ACCESS_LOG, ATTEMPT_LOG

logger = logging.getLogger(__name__)

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
METHOD: Final = "StreamAccessLogs"

_DONE: Final[bytes] = StreamAccessLogsResponse().SerializeToString()


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
    """The service. Its streams stay open for as long as this replica schedules."""

    def __init__(self, hears: Hears, peers: Peers) -> None:
        self._hears = hears
        self._peers = peers
        self._streams: set[asyncio.Task[Any]] = set()
        self._hung_up: set[asyncio.Task[Any]] = set()

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What a gRPC server needs to serve it."""
        method = grpc.stream_unary_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    def hang_up(self) -> None:
        """End all streams: sidecars open new ones, to the replica that schedules by then."""
        for each in self._streams:
            self._hung_up.add(each)
            each.cancel()

    async def _stream(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._streams.add(task)
        try:
            await self._take(requests, context)
        except (Denied, Unauthenticated) as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.detail)
        except (InvalidRequest, DecodeError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an access log: {error}")
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.detail)
        except asyncio.CancelledError:
            if task not in self._hung_up:
                raise
            await context.abort(grpc.StatusCode.UNAVAILABLE, _ELSEWHERE)
        finally:
            self._streams.discard(task)
            self._hung_up.discard(task)
        return _DONE

    async def _take(self, requests: AsyncIterator[bytes], context: Context) -> None:
        name = ""
        async for data in requests:
            peer = self._peers.peer(context)
            message = StreamAccessLogsMessage.FromString(data)
            name = message.identifier.log_name or name
            if not await self._hears.ready():
                raise Unavailable(_ELSEWHERE)
            if name == ACCESS_LOG:
                self._hears.calls_logged(message.http_logs.log_entry, peer)
            elif name == ATTEMPT_LOG:
                for entry in message.http_logs.log_entry:
                    self._hears.attempt_logged(entry, peer)
            else:
                raise InvalidRequest(f"there is no log {name[:40]!r}")


_ELSEWHERE: Final = "another replica schedules calls to models"
