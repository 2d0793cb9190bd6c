"""Envoy's access logs by gRPC: one service for all of them, each read by whoever knows its name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final, Protocol

import grpc
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from google.protobuf.message import DecodeError

from weft.controlplane.xds.connection import Context
from weft.errors import Denied, InvalidRequest, Unauthenticated, Unavailable

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
METHOD: Final = "StreamAccessLogs"

_DONE: Final[bytes] = StreamAccessLogsResponse().SerializeToString()


class LogReader(Protocol):
    """Reads logs of some names."""

    async def read(
        self, name: str, messages: AsyncIterator[StreamAccessLogsMessage], context: Context
    ) -> None:
        """Read what one Envoy tells under `name`, until it ends.

        May raise Denied, Unauthenticated, InvalidRequest and Unavailable, each of which ends the stream.
        """
        ...


class AccessLogService:
    """The service. Whoever reads makes sure of the peer."""

    def __init__(self, readers: Mapping[str, LogReader]) -> None:
        """`readers` by the names of logs."""
        self._readers = readers

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What a gRPC server needs to serve it."""
        method = grpc.stream_unary_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    async def _stream(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        try:
            messages = _parsed(requests)
            first = await anext(messages, None)
            if first is not None:
                name = first.identifier.log_name
                await self._reader(name).read(name, _after(first, messages), context)
        except (Denied, Unauthenticated) as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.detail)
        except (InvalidRequest, DecodeError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an access log: {error}")
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.detail)
        return _DONE

    def _reader(self, name: str) -> LogReader:
        reader = self._readers.get(name)
        if reader is None:
            raise InvalidRequest(f"there is no log {name[:40]!r}")
        return reader


async def _parsed(requests: AsyncIterator[bytes]) -> AsyncIterator[StreamAccessLogsMessage]:
    async for data in requests:
        yield StreamAccessLogsMessage.FromString(data)


async def _after(
    first: StreamAccessLogsMessage, others: AsyncIterator[StreamAccessLogsMessage]
) -> AsyncIterator[StreamAccessLogsMessage]:
    yield first
    async for each in others:
        yield each
