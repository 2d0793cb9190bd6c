"""Sending one webhook: one POST over a connection of its own, to an address that was checked.

No redirects are followed, no proxies of the environment used, no cookies kept, and of the answer nothing
is looked at but its status: the receiver is whoever a caller from outside named.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import h11

from weft.errors import InvalidRequest, TimedOut, Unavailable
from weft.gateway.webhook_address import (
    Lookup,
    Receiver,
    parse_receiver,
    permitted_addresses,
    system_lookup,
)
from weft.model.gateway import WebhookSpec

MAX_ANSWER_HEADERS = 16 * 1024
"""Bytes of an answer before its body, of which nothing is read."""

MAX_INTERIM = 8
"""Answers of 1xx that may precede the answer."""

_CHUNK = 16 * 1024


@dataclass(frozen=True, slots=True)
class WebhookClient:
    """Sends webhooks."""

    trust: ssl.SSLContext
    """By which receivers' certificates are verified."""
    lookup: Lookup = system_lookup

    async def post(self, url: str, rules: WebhookSpec, headers: Mapping[str, str], body: bytes) -> int:
        """POST JSON to `url`, and return the status of the answer.

        Raises InvalidRequest if nothing may be sent there, Unavailable if the receiver cannot be reached or
        does not speak HTTP, TimedOut if it takes longer than the rules say, all in all.
        """
        receiver = parse_receiver(url, rules)
        try:
            async with asyncio.timeout(rules.timeout):
                addresses = await permitted_addresses(receiver, rules, self.lookup)
                return await self._post(receiver, addresses, headers, body)
        except TimeoutError as error:
            raise TimedOut(f"{receiver.authority} did not answer in {rules.timeout:g} s") from error
        except OSError as error:
            # Without the error's text: it names the address.
            raise Unavailable(f"{receiver.authority} cannot be reached: {type(error).__name__}") from error
        except h11.ProtocolError as error:
            raise Unavailable(f"{receiver.authority} does not answer in HTTP/1.1") from error

    async def _post(
        self, receiver: Receiver, addresses: Sequence[str], headers: Mapping[str, str], body: bytes
    ) -> int:
        reader, writer = await self._connect(receiver, addresses)
        try:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER_HEADERS)
            for event in _request(receiver, headers, body):
                writer.write(connection.send(event) or b"")
            await writer.drain()
            return await _status(connection, reader)
        finally:
            # At once: who does not end the connection properly would hold it open.
            writer.transport.abort()

    async def _connect(
        self, receiver: Receiver, addresses: Sequence[str]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        *others, last = addresses
        for address in others:
            try:
                return await self._open(receiver, address)
            except OSError:
                continue
        return await self._open(receiver, last)

    async def _open(
        self, receiver: Receiver, address: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not receiver.tls:
            return await asyncio.open_connection(address, receiver.port)
        return await asyncio.open_connection(
            address, receiver.port, ssl=self.trust, server_hostname=receiver.host.rstrip(".")
        )


def webhook_trust() -> ssl.SSLContext:
    """By which receivers' certificates are verified: the system's roots."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _request(receiver: Receiver, headers: Mapping[str, str], body: bytes) -> list[h11.Event]:
    fields = [
        ("Host", receiver.authority),
        ("User-Agent", "weft-webhooks/1"),
        ("Accept", "*/*"),
        ("Connection", "close"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        *headers.items(),
    ]
    try:
        request = h11.Request(method="POST", target=receiver.target, headers=fields)
    except h11.LocalProtocolError as error:
        raise InvalidRequest(f"no request can be made of the webhook's URL: {error}") from error
    return [request, h11.Data(body), h11.EndOfMessage()]


async def _status(connection: h11.Connection, reader: asyncio.StreamReader) -> int:
    interim = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            return event.status_code
        elif isinstance(event, h11.InformationalResponse) and interim < MAX_INTERIM:
            interim += 1
        else:
            raise h11.RemoteProtocolError("no answer")
