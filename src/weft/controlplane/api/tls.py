"""TLS of the API: the server's certificate and roots, exchanged while it serves, and who the client is.

A client certificate is optional: operators have tokens. One that is shown must be valid, or the handshake
fails; what it proves is for `authentication` to decide, to which it comes as the ASGI TLS extension has it
(https://asgi.readthedocs.io/en/latest/specs/tls.html).
"""

from __future__ import annotations

import asyncio
import math
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from weft.errors import InvalidRequest
from weft.identity.bundle import TrustBundles

MAX_HEAD_BYTES = 64 * 1024
"""A request whose line and headers are longer is answered with 400, and its connection closed."""

HEAD_TIMEOUT = 30.0
"""Seconds a client has to send a request's line and headers, from the connection or their first byte on."""

BODY_TIMEOUT = 30.0
"""Seconds it then has to send the body."""

MAX_SOCKET_BYTES = 1024 * 1024
"""A larger message from a WebSocket's client ends the connection."""

_FAREWELL = 0.3
"""Seconds a client has, when the server stops, to take what was written to it and to end its TLS."""

_PIPE_BYTES = 16 * 1024  # what a pipe holds while nobody reads it, on every system

_STALE_SHARE = 0.75
"""Of its life, after which a client's certificate has a successor: it is renewed at half of it."""

Refusal = Callable[[str], None]
"""Told why a client's certificate was refused in the handshake."""


class _Handshake(ssl.SSLObject):
    """A server's end of a connection, which tells why it refuses a client's certificate."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            if isinstance(self.context, _Context):
                self.context.refused(error.verify_message)
            raise


class _Context(ssl.SSLContext):
    """Certificate, key and roots of one moment."""

    sslobject_class = _Handshake
    refused: Refusal


class ServerTls(ssl.SSLContext):
    """The context a server is given once: each new connection is made with what `use` was given last.

    Make it with `server_tls`. Connections that are open keep what they were made with.
    """

    _current: _Context | None = None
    _refused: Refusal

    def use(self, chain_pem: bytes, key_pem: bytes, bundles: TrustBundles) -> None:
        """Serve with this certificate chain and key, to clients whose certificates `bundles` vouch for.

        Roots of federated trust domains let a handshake succeed, so that the answer can say what is wrong.
        Raises InvalidRequest if these are no certificates, or the key is another's.
        """
        context = _Context(ssl.PROTOCOL_TLS_SERVER)
        context.refused = self._refused
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_OPTIONAL
        # Resumed sessions would be those of clients who proved who they are at some other time.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        try:
            context.load_verify_locations(cadata="".join(each.pem.decode() for each in bundles.all))
            with _readable(chain_pem) as chain, _readable(key_pem) as key:
                context.load_cert_chain(chain, key)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise InvalidRequest(f"the API cannot serve with this certificate: {error}") from error
        self._current = context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """A new connection, made with what is current. Raises SSLError as long as nothing is."""
        if self._current is None:
            raise ssl.SSLError("the API has no certificate yet")
        return self._current.wrap_bio(*arguments, **options)


def server_tls(refused: Refusal = lambda _reason: None) -> ServerTls:
    """A context that serves nobody until `use` is called; `refused` hears of refused certificates."""
    tls = ServerTls(ssl.PROTOCOL_TLS_SERVER)
    tls._refused = refused
    return tls


def server_config(
    app: ASGIApp, tls: ServerTls | None, *, stop_timeout: int | None = None, websockets: bool = False
) -> uvicorn.Config:
    """How uvicorn serves the API: over TLS if given, believing no header about who the client is.

    `stop_timeout` is how many seconds open requests have to finish when it stops. With `websockets` there are
    such, of messages of at most MAX_SOCKET_BYTES.
    """
    return uvicorn.Config(
        app,
        http=ApiProtocol,
        ws="wsproto" if websockets else "none",
        ws_max_size=MAX_SOCKET_BYTES,
        ws_per_message_deflate=False,  # which costs memory for each connection
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=stop_timeout,
    )


class ApiProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, which tells the application of the client's certificate, and limits what it reads."""

    _chain: tuple[str, ...] = ()
    _stale_from: float = math.inf
    _head: int | None = 0  # bytes read of a request's line and headers; None once they are complete
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection begins."""
        super().connection_made(transport)
        connection = transport.get_extra_info("ssl_object")
        if connection is not None:
            self._chain = peer_chain(connection)
            self._stale_from = stale_from(connection)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection has ended."""
        self._cancel_deadline()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server stops: end the connection, though its client may be slow to agree, or gone."""
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(_FAREWELL, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """More of a request has come."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The headers are too large.")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._await_head()
        if self.scheme == "https":
            self.scope["extensions"] = {"tls": {"client_cert_chain": self._chain}}

    def on_headers_complete(self) -> None:
        """A request's headers are there. Raises ValueError, which ends in a 400, if they are too large."""
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            raise ValueError("the headers are too large")
        self._head = None
        self._await(BODY_TIMEOUT)
        super().on_headers_complete()
        if time.time() >= self._stale_from:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """A request is there, body and all."""
        self._cancel_deadline()
        super().on_message_complete()

    def _await_head(self) -> None:
        self._head = 0
        self._await(HEAD_TIMEOUT)

    def _await(self, seconds: float) -> None:
        """Close the connection unless what is to come has come by then."""
        self._cancel_deadline()
        self._deadline = self.loop.call_later(seconds, self.transport.close)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def stale_from(connection: ssl.SSLObject) -> float:
    """From when (seconds since 1970) the peer should connect anew, with the certificate it has by then.

    A connection that is used all the time would else outlive its certificate, and its requests be refused.
    """
    certificate = connection.getpeercert()
    if not certificate:
        return math.inf
    begin, end = (ssl.cert_time_to_seconds(str(certificate[each])) for each in ("notBefore", "notAfter"))
    return begin + (end - begin) * _STALE_SHARE


def peer_chain(connection: ssl.SSLObject) -> tuple[str, ...]:
    """The certificates (PEM) the peer has shown, its own first; none if it showed none."""
    if connection.getpeercert(binary_form=True) is None:
        return ()
    if sys.version_info >= (3, 13):
        return tuple(ssl.DER_cert_to_PEM_cert(each) for each in connection.get_unverified_chain())
    # What 3.13 made public was there before.
    return tuple(each.public_bytes() for each in connection._sslobj.get_unverified_chain())  # type: ignore[attr-defined]


@contextmanager
def _readable(pem: bytes) -> Iterator[str]:
    """The path at which OpenSSL, which takes nothing but files, reads `pem` once: no key touches a disk."""
    if len(pem) > _PIPE_BYTES:
        raise ValueError(f"it has more than {_PIPE_BYTES} bytes")
    reading, writing = os.pipe()
    try:
        os.write(writing, pem)
        os.close(writing)
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)
