"""Sending OTLP on: to a collector, Jaeger, Tempo, whatever takes it, by HTTP or gRPC.

What may be tried again is as the specification says: https://opentelemetry.io/docs/specs/otlp/#failures
"""

from __future__ import annotations

import re
import ssl
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc import aio

from weft.errors import InvalidRequest

TIMEOUT: Final = 10.0
"""Seconds that the receiver has for an answer."""

MAX_HEADERS: Final = 64
MAX_HEADERS_FILE: Final = 64 * 1024
"""Bytes."""

_SCHEMES: Final = ("http", "https", "grpc", "grpcs")
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*:\s*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_RETRYABLE_STATUSES: Final = frozenset({429, 502, 503, 504})
_RETRYABLE_CODES: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


Headers = Callable[[], list[tuple[str, str]]]
"""Gives those of the next request; raises InvalidRequest where they cannot be had."""


class Signal(Enum):
    """What is sent: its path of OTLP/HTTP, and its method of OTLP/gRPC."""

    TRACES = ("/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export")
    METRICS = ("/v1/metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")


class NotSent(Exception):
    """The receiver did not take it."""

    def __init__(self, detail: str, *, again: bool, after: float | None = None) -> None:
        """`again`: whether it may be tried again; `after` so many seconds, if the receiver said so."""
        super().__init__(detail)
        self.detail = detail
        self.again = again
        self.after = after


class Sender(Protocol):
    """Sends to one receiver."""

    async def send(self, signal: Signal, data: bytes) -> bytes:
        """Send a request; return the answer. Raises NotSent."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to send to."""

    scheme: str
    host: str
    """With its port."""
    path: str

    @property
    def text(self) -> str:
        """The endpoint as it can be shown: there are no credentials in it."""
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def secure(self) -> bool:
        """Whether by TLS."""
        return self.scheme in {"https", "grpcs"}


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint that `text` is. Raises InvalidRequest."""
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in _SCHEMES or not parts.hostname or port == -1 or "@" in parts.netloc:
        raise InvalidRequest(
            "the OTLP endpoint must be http://, https://, grpc:// or grpcs:// and a host, no credentials "
            f"(the headers file has those): {text.rpartition('@')[2][:200]!r} is none"
        )
    if parts.query or parts.fragment or (parts.scheme.startswith("grpc") and parts.path.strip("/")):
        raise InvalidRequest(f"the OTLP endpoint {text[:200]!r} has more than its scheme, host and path")
    host = parts.netloc
    if port is None and parts.scheme.startswith("grpc"):
        host = f"{host}:4317"
    return Endpoint(parts.scheme, host, parts.path.rstrip("/"))


def read_headers(file: Path | None) -> list[tuple[str, str]]:
    """The headers in a file, each in a line of its own. Raises InvalidRequest, naming no value."""
    if file is None:
        return []
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_HEADERS_FILE + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the file with headers for OTLP, {file}, cannot be read") from error
    lines = [line.strip() for line in text.splitlines()]
    given = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if len(text) > MAX_HEADERS_FILE or len(given) > MAX_HEADERS:
        raise InvalidRequest(f"{file} has more than {MAX_HEADERS} headers")
    headers = []
    for number, line in given:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise InvalidRequest(f"{file}, line {number}: a header is `name: value`")
        headers.append((match[1].lower(), match[2]))
    return headers


def open_sender(
    endpoint: Endpoint, headers: Callable[[], list[tuple[str, str]]], roots: Path | None
) -> Sender:
    """What sends to `endpoint`; `headers` gives those of the next request. Raises InvalidRequest."""
    try:
        pem = roots.read_bytes() if roots is not None else None
        if endpoint.scheme.startswith("grpc"):
            return _GrpcSender(endpoint, headers, pem)
        return _HttpSender(endpoint, headers, pem)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise InvalidRequest(f"the authorities for OTLP in {roots} cannot be read") from error


class _HttpSender:
    def __init__(self, endpoint: Endpoint, headers: Headers, roots: bytes | None) -> None:
        import httpx  # noqa: PLC0415 - has a terminal library with it, and few control planes send on

        context = ssl.create_default_context(cadata=None if roots is None else roots.decode())
        # What is set in the environment for other programs' requests is not meant for these.
        self._client = httpx.AsyncClient(verify=context, timeout=TIMEOUT, trust_env=False)
        self._failures = (httpx.HTTPError, httpx.InvalidURL, OSError)
        self._base = endpoint.text
        self._headers = headers

    async def send(self, signal: Signal, data: bytes) -> bytes:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        headers = [
            *self._headers(),
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "gzip"),
        ]
        try:
            answer = await self._client.post(
                self._base + signal.value[0],
                content=packer.compress(data) + packer.flush(),
                headers=headers,
            )
        except self._failures as error:
            raise NotSent(f"{self._base}: {type(error).__name__}", again=True) from error
        if answer.status_code // 100 == 2:
            return answer.content
        again = answer.status_code in _RETRYABLE_STATUSES
        after = _seconds(answer.headers.get("retry-after", ""))
        raise NotSent(f"{self._base} answered {answer.status_code}", again=again, after=after)

    async def close(self) -> None:
        await self._client.aclose()


class _GrpcSender:
    def __init__(self, endpoint: Endpoint, headers: Headers, roots: bytes | None) -> None:
        self._where = endpoint.text
        self._headers = headers
        # Tried anew by our own pauses, not by gRPC's, which grow to two minutes.
        options = (("grpc.max_reconnect_backoff_ms", 5_000), ("grpc.enable_http_proxy", 0))
        self._channel: Any  # the stubs know no requests that are bytes
        if endpoint.secure:
            credentials = grpc.ssl_channel_credentials(roots)
            self._channel = aio.secure_channel(endpoint.host, credentials, options=options)
        else:
            self._channel = aio.insecure_channel(endpoint.host, options=options)

    async def send(self, signal: Signal, data: bytes) -> bytes:
        call = self._channel.unary_unary(signal.value[1])
        try:
            answer: bytes = await call(
                data, timeout=TIMEOUT, metadata=self._headers(), compression=grpc.Compression.Gzip
            )
        except aio.AioRpcError as error:
            after = _retry_info(error)
            exhausted = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and after is not None
            again = exhausted or error.code() in _RETRYABLE_CODES
            raise NotSent(f"{self._where} answered {error.code().name}", again=again, after=after) from error
        return answer

    async def close(self) -> None:
        await self._channel.close()


def _seconds(text: str) -> float | None:
    """What a Retry-After says, from now."""
    if text.isdecimal():
        return float(text[:6])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _retry_info(error: aio.AioRpcError) -> float | None:
    metadata: Any = error.trailing_metadata()
    for name, value in metadata or ():
        if name != "grpc-status-details-bin":
            continue
        try:
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return float(info.retry_delay.ToTimedelta().total_seconds())
        except (DecodeError, OverflowError):
            return None
    return None
