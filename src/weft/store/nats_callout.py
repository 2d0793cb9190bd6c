"""Answering NATS servers, which ask about every connection who it is and what it may do.

The protocol is NATS's auth callout (ADR-26): requests and answers are JWTs. An answer is signed with the seed
of an account nkey, whose public half stands in the servers' configuration. Requests need no proof of their
own: only the servers can publish to that subject in the control plane's account, and the control plane.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nats.errors
import nkeys
from nats.aio.client import Client
from nats.aio.msg import Msg

from weft.errors import Denied, InvalidRequest, MeshError
from weft.store.nats_accounts import CALLOUT_SUBJECT, CONTROL_ACCOUNT, MEMBER_ACCOUNT
from weft.store.nats_connection import NatsConnection

logger = logging.getLogger(__name__)

_QUEUE = "weft-control"
"""Of the control plane's replicas one answers."""
_MAX_REQUEST_BYTES = 256 * 1024
_MAX_SEED_BYTES = 256
_DECISION_LIMIT = 2.0
"""Seconds; the servers wait for three."""
_MAX_SUBSCRIPTIONS = 32 * 1024
"""Of one connection. Who waits for a task's end has two, and a gateway may have thousands that wait."""
_ANSWERS_WITHIN = 0.5
"""Seconds in which the servers of a cluster answer who is connected to them."""
_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class ConnectingClient:
    """Who wants to connect, as a server tells it."""

    chain_pem: bytes
    """Its certificate, whose key it has, and those between it and the server's root that vouches for it."""
    host: str
    name: str
    """What it calls itself; proves nothing."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a connection may do, until when."""

    name: str
    """Whom it is granted to: what monitoring and `kick` know the connection by."""
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    """Subjects, with NATS's wildcards. What is not listed is refused; an empty list refuses everything."""
    expires_at: float
    """Seconds since 1970: the server then closes the connection."""
    control: bool = False
    """Whether it is the control plane's: it then uses that account, where the streams are."""


Decide = Callable[[ConnectingClient], Awaitable[Grant]]
"""Says what a client may do; raises a MeshError, Denied for one, if it may not connect."""


class Callout:
    """The control plane's side of the callout, over its own connection."""

    def __init__(self, connection: NatsConnection, issuer: Path) -> None:
        """`issuer` is the file with the seed that answers are signed with. Raises InvalidRequest."""
        self._connection = connection
        self._issuer = read_seed(issuer)

    async def serve(self, decide: Decide) -> None:
        """Answer until cancelled. What cannot be decided, for whichever reason, is refused."""
        lost = asyncio.Event()
        while True:
            lost.clear()
            with self._connection.on_loss(lost.set), suppress(nats.errors.Error):
                client = await self._connection.client()
                await client.subscribe(CALLOUT_SUBJECT, queue=_QUEUE, cb=partial(self._answer, decide))
                await client.flush()
                await lost.wait()
            await asyncio.sleep(_PAUSE)

    async def kick(self, name: str) -> int:
        """Close the connections granted to `name`, on all servers; return how many. Raises Unavailable.

        They come back at once, and are asked about again: `decide` must refuse them by now.
        """
        what = f"close the connections of {name}"
        try:
            async with asyncio.timeout(self._connection.timeout):
                client = await self._connection.client()
                found = await _connections(client, name)
                for server, number in found:
                    request = json.dumps({"cid": number}).encode()
                    await client.request(f"$SYS.REQ.SERVER.{server}.KICK", request)
        except (nats.errors.Error, TimeoutError, ValueError) as error:
            raise self._connection.unavailable(what, error) from error
        return len(found)

    async def _answer(self, decide: Decide, message: Msg) -> None:
        try:
            answer = await answered(message.data, decide, self._issuer)
        except ValueError as error:
            logger.warning("a question of NATS about a connection cannot be read: %s", error)
            return
        try:
            await message.respond(answer.encode())
        except nats.errors.MaxPayloadError:
            logger.warning(
                "a client is not let in to NATS: what it may do takes %d bytes to say, more than NATS takes; "
                "name fewer topics and queues in its AccessPolicies",
                len(answer),
            )
        except nats.errors.Error as error:
            logger.info("an answer about a connection to NATS could not be sent: %s", error)


async def answered(question: bytes, decide: Decide, issuer: nkeys.KeyPair) -> str:
    """The answer to a server's question, signed by `issuer`. Raises ValueError if it cannot be read."""
    request = _Request.parse(question)
    answer: dict[str, Any] = {"type": "authorization_response", "version": 2}
    try:
        async with asyncio.timeout(_DECISION_LIMIT):
            grant = await decide(request.client)
        answer["jwt"] = _signed(issuer, request.user, _account(grant), _rights(grant), grant)
    except MeshError as error:
        logger.info("NATS refuses %s from %s: %s", _named(request), request.client.host, error.detail)
        answer["error"] = error.code
    except Exception:
        # `decide` is somebody else's code. Nobody gets in because it failed; without an answer the server
        # would refuse too, but seconds later, and nats-py would keep to itself what went wrong.
        logger.exception("NATS refuses %s: whether it may connect cannot be decided", _named(request))
        answer["error"] = "undecided"
    return _signed(issuer, request.user, request.server, answer)


@dataclass(frozen=True, slots=True)
class _Request:
    """A server's question."""

    user: str
    """The nkey that it gives the connection for now."""
    server: str
    client: ConnectingClient

    @classmethod
    def parse(cls, data: bytes) -> _Request:
        """Raises ValueError."""
        if len(data) > _MAX_REQUEST_BYTES:
            raise ValueError(f"it has more than {_MAX_REQUEST_BYTES} bytes")
        try:
            _, payload, _ = data.split(b".")
            content = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))["nats"]
            chains = (content.get("client_tls") or {}).get("verified_chains") or [[]]
            info = content["client_info"]
            client = ConnectingClient(
                "\n".join(chains[0][:-1]).encode(), str(info.get("host", "")), str(info.get("name", ""))[:200]
            )
            return cls(str(content["user_nkey"]), str(content["server_id"]["id"]), client)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"it is not of the form that is known ({type(error).__name__})") from error


def user_seed() -> bytes:
    """A new nkey of a user, as the seed that is kept secret."""
    return _seed(nkeys.PREFIX_BYTE_USER)


def account_seed() -> bytes:
    """A new nkey of an account, as the seed that is kept secret."""
    return _seed(nkeys.PREFIX_BYTE_ACCOUNT)


def read_seed(seed: Path) -> nkeys.KeyPair:
    """The nkey whose seed is in a file. Raises InvalidRequest."""
    try:
        with seed.open("rb") as file:
            return nkeys.from_seed(file.read(_MAX_SEED_BYTES).strip())
    except (OSError, nkeys.NkeysError, ValueError) as error:
        raise InvalidRequest(
            f"{seed} holds no seed of an nkey ({type(error).__name__}): write one there, "
            f"and its public half into the NATS servers' configuration"
        ) from None


def public_nkey(seed: bytes) -> str:
    """The public half of an nkey."""
    return _public(nkeys.from_seed(seed))


async def _connections(client: Client, name: str) -> list[tuple[str, int]]:
    """The server and number of each connection granted to `name`."""
    inbox = client.new_inbox()
    found: list[tuple[str, int]] = []

    async def take(message: Msg) -> None:
        with suppress(ValueError, KeyError, TypeError):
            answer = json.loads(message.data)
            server = str(answer["server"]["id"])
            found.extend((server, int(each["cid"])) for each in answer["data"].get("connections") or [])

    subscription = await client.subscribe(inbox, cb=take)
    try:
        for account in (MEMBER_ACCOUNT, CONTROL_ACCOUNT):
            query = {"auth": True, "user": name, "acc": account}
            await client.publish("$SYS.REQ.SERVER.PING.CONNZ", _json(query), reply=inbox)
        await asyncio.sleep(_ANSWERS_WITHIN)
    finally:
        await subscription.unsubscribe()
    return found


def _signed(
    issuer: nkeys.KeyPair, subject: str, audience: str, content: dict[str, Any], grant: Grant | None = None
) -> str:
    claims = {
        "iss": _public(issuer),
        "sub": subject,
        "aud": audience,
        "iat": int(time.time()),
        **({"name": grant.name, "exp": int(grant.expires_at)} if grant else {}),
        "nats": content,
    }
    claims["jti"] = base64.b32encode(hashlib.sha256(_json(claims)).digest()).decode().rstrip("=")
    signed = f"{_base64(_json({'typ': 'JWT', 'alg': 'ed25519-nkey'}))}.{_base64(_json(claims))}"
    return f"{signed}.{_base64(issuer.sign(signed.encode()))}"


def _account(grant: Grant) -> str:
    return CONTROL_ACCOUNT if grant.control else MEMBER_ACCOUNT


def _rights(grant: Grant) -> dict[str, Any]:
    """The part of a user's JWT that says what it may do. Raises Denied if the grant has lapsed."""
    if grant.expires_at <= time.time() + 1:
        raise Denied(f"the identity of {grant.name} has expired")
    return {
        "type": "user",
        "version": 2,
        "pub": _permission(grant.publish),
        "sub": _permission(grant.subscribe),
        "subs": _MAX_SUBSCRIPTIONS,
        "data": -1,
        "payload": -1,
    }


def _permission(subjects: tuple[str, ...]) -> dict[str, list[str]]:
    # An empty list of what is allowed would allow everything.
    return {"allow": list(subjects)} if subjects else {"deny": [">"]}


def _named(request: _Request) -> str:
    return repr(request.client.name) if request.client.name else "a client without a name"


def _seed(kind: int) -> bytes:
    seed: bytes = nkeys.encode_seed(os.urandom(32), kind)
    return seed


def _public(pair: nkeys.KeyPair) -> str:
    key: bytes = pair.public_key
    return key.decode().rstrip("=")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
