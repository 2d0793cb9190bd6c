"""A real nats-server as `weft up` configures it, and a control plane's connection to it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from nats.aio.client import Client

from tests.pki import Pki
from tests.servers import NatsServer, nats_server
from weft.aio.poll import until
from weft.aio.tasks import TaskOwner
from weft.controlplane.message_grants import NO_MESSAGES, MessageGrant
from weft.controlplane.nats_access import Admission
from weft.errors import Unavailable
from weft.identity.bundle import TrustBundles
from weft.identity.svid import Svid
from weft.identity.tls import client_context
from weft.local.nats_security import NatsSecurity, make_nats_security
from weft.model.audit_codec import AuditCodec
from weft.model.spiffe import SpiffeId
from weft.model.subjects import inbox_prefix
from weft.registry.registry import Registry
from weft.store.nats import NatsStore
from weft.store.nats_accounts import AUDIT
from weft.store.nats_callout import Callout, ConnectingClient

PATIENCE = 30.0


class Secured:
    """A NATS server, and a control plane's connection that answers its questions."""

    def __init__(self, server: NatsServer, security: NatsSecurity, pki: Pki, directory: Path) -> None:
        self.server = server
        self.security = security
        self.pki = pki
        self.revoked: set[SpiffeId] = set()
        self.refused: list[str] = []
        self.messages: dict[SpiffeId, MessageGrant] = {}
        self.admission: Admission
        self.control: NatsStore
        self.callout: Callout
        self.credentials = directory / "client.pem"
        self._tasks = TaskOwner("callout")

    async def start_control(self) -> None:
        """Connect as the control plane, and answer."""
        self.control = await NatsStore.connect(
            [self.server.url],
            name="control",
            tls=partial(client_context, self.security.roots.read_bytes(), self.security.control_credentials),
            credentials=self.security.control_seed,
        )
        self.callout = self.control.callout(self.security.issuer_seed)
        self._tasks = TaskOwner("callout")
        self.admission = Admission(
            self._bundles, revoked=self._is_revoked, messages=self._messages, refused=self._note_refusal
        )
        self._tasks.start(self.callout.serve(self.admission.decide), name="serve", endless=True)

    async def stop_control(self) -> None:
        """Be gone."""
        await self._tasks.close()
        await self.control.close()

    def tls(self, chain: bytes, key: bytes) -> Callable[[], ssl.SSLContext]:
        """What a client connects with that has this certificate and key."""
        self.credentials = self.credentials.with_name(f"client-{time.time_ns()}.pem")
        self.credentials.write_bytes(chain + key)
        return partial(client_context, self.security.roots.read_bytes(), self.credentials)

    async def connect(self, chain: bytes, key: bytes, *, inbox: str = "_INBOX") -> NatsStore:
        """Connect with a certificate."""
        tls = self.tls(chain, key)
        return await NatsStore.connect(
            [self.server.url], name="client", timeout=5.0, tls=tls, inbox_prefix=inbox
        )

    @asynccontextmanager
    async def member(self, identity: SpiffeId, *, lifetime: float = 3600.0) -> AsyncIterator[NatsStore]:
        """A connection as `identity`."""
        chain, key = self.pki.svid(identity, lifetime=lifetime)
        inbox = inbox_prefix(identity)
        store: list[NatsStore] = []

        async def is_in() -> bool:
            # The callout may not listen yet, right after a start.
            with suppress(Unavailable):
                store.append(await self.connect(chain, key, inbox=inbox))
            return bool(store)

        async with asyncio.timeout(PATIENCE):
            await until(is_in)
        try:
            yield store[0]
        finally:
            await store[0].close()

    @asynccontextmanager
    async def raw(self, identity: SpiffeId) -> AsyncIterator[tuple[Client, list[str]]]:
        """A client as `identity` that keeps to nothing, and what the server complained about to it."""
        complaints: list[str] = []

        async def note(error: Exception) -> None:
            complaints.append(str(error))

        client = Client()
        tls = self.tls(*self.pki.svid(identity))()
        inbox = inbox_prefix(identity)
        await client.connect(
            [self.server.url],
            tls=tls,
            tls_handshake_first=True,
            inbox_prefix=inbox,
            error_cb=note,
            allow_reconnect=False,
        )
        try:
            yield client, complaints
        finally:
            await client.close()

    def _bundles(self) -> TrustBundles:
        return self.pki.bundles()

    def _messages(self, who: SpiffeId) -> MessageGrant:
        return self.messages.get(who, NO_MESSAGES)

    def _is_revoked(self, svid: Svid) -> bool:
        return svid.id in self.revoked

    def _note_refusal(self, _client: ConnectingClient, reason: str) -> None:
        self.refused.append(reason)


@asynccontextmanager
async def secured_nats(tmp_path: Path) -> AsyncIterator[Secured]:
    """A server, and a control plane that has made what every mesh has."""
    security = make_nats_security(tmp_path / "security")
    pki = Pki()
    assert security.trust(pki.bundle().pem)
    assert not security.trust(pki.bundle().pem)
    async with nats_server(tmp_path, security) as server:
        running = Secured(server, security, pki, tmp_path)
        await running.start_control()
        await Registry.open(running.control)
        await running.control.journal(AUDIT, AuditCodec())
        yield running
        await running.stop_control()
