"""OTLP by gRPC: where sidecars' Envoys send their spans."""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from weft.controlplane.llm.peers import Peers
from weft.controlplane.telemetry.intake import Intake, Taken
from weft.controlplane.telemetry.metrics import SpanMetrics
from weft.controlplane.telemetry.reporter import Reporter
from weft.controlplane.xds.connection import Context
from weft.errors import Denied, InvalidRequest, TooMany, Unauthenticated

SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
METHOD: Final = "Export"


class TraceService:
    """The service. Only sidecars may use it, each for itself."""

    def __init__(self, intake: Intake, peers: Peers, metrics: SpanMetrics) -> None:
        self._intake = intake
        self._peers = peers
        self._metrics = metrics

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What a gRPC server needs to serve it."""
        method = grpc.unary_unary_rpc_method_handler(self._export)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    async def _export(self, request: bytes, context: Context) -> bytes:
        try:
            reporter = Reporter.of_envoy(self._peers.peer(context))
            with self._intake.admitted(len(request), reporter):
                parsed = ExportTraceServiceRequest.FromString(request)
                taken = await self._intake.take_admitted(parsed.resource_spans, reporter)
        except (Denied, Unauthenticated) as error:
            await self._refuse(context, grpc.StatusCode.PERMISSION_DENIED, error.detail)
        except DecodeError:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "not an ExportTraceServiceRequest")
        except InvalidRequest as error:
            await self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error.detail)
        except TooMany as error:
            # The code after which senders try again.
            await self._refuse(context, grpc.StatusCode.UNAVAILABLE, error.detail)
        else:
            return answer(taken).SerializeToString()
        return b""

    async def _refuse(self, context: Context, code: grpc.StatusCode, detail: str) -> None:
        self._metrics.refused()
        await context.abort(code, detail)


def answer(taken: Taken) -> ExportTraceServiceResponse:
    """What a sender is told of what became of its request."""
    response = ExportTraceServiceResponse()
    if taken.rejected:
        response.partial_success.rejected_spans = taken.rejected
        response.partial_success.error_message = f"left out: {taken.reason}"
    return response
