"""A certificate authority with its API, in the test's own process: all a sidecar needs to get an identity."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import uvicorn
from fastapi import FastAPI

from tests.control_access import MemoryAudit
from weft.aio.poll import until
from weft.controlplane.api import identity
from weft.controlplane.api.access import Gate, admit, control_access
from weft.controlplane.api.tls import server_config, server_tls
from weft.controlplane.attestation import Attestor
from weft.controlplane.ca.authority import Authority
from weft.controlplane.ca.lifetimes import Lifetimes
from weft.controlplane.enrolment import Enrolment
from weft.controlplane.identities import Identities
from weft.controlplane.join_tokens import JoinTokens
from weft.controlplane.membership import Membership
from weft.controlplane.own_identity import OwnIdentity
from weft.controlplane.sealing import Sealer
from weft.controlplane.tokens import Tokens
from weft.model.node import Address
from weft.problems.answers import answer_with_problems
from weft.store.memory import MemoryStore

HOST = "127.0.0.1"


@dataclass(frozen=True)
class AuthorityApi:
    """A running API that gives out identities."""

    address: Address
    bundle: Path
    """File with the roots."""
    membership: Membership
    own: OwnIdentity
    audit: MemoryAudit

    async def admission(self, agent_type: str | None, instance: str) -> Mapping[str, str]:
        """Environment variables with which a sidecar gets an identity, once."""
        token = await self.membership.join_tokens.invite(
            agent_type=agent_type, instance=instance, operator="tester", labels={}
        )
        return {"WEFT_JOIN_TOKEN": token.token, **self.environ}

    @property
    def environ(self) -> Mapping[str, str]:
        """Environment variables that say where it is, and by which roots it is believed."""
        return {"WEFT_API": f"https://{self.address}", "WEFT_TRUST_BUNDLE": str(self.bundle)}


@asynccontextmanager
async def authority_api(
    directory: Path,
    lifetimes: Lifetimes | None = None,
    *,
    port: int = 0,
    attestors: Mapping[str, Attestor] | None = None,
) -> AsyncIterator[AuthorityApi]:
    """Serve until the context is left; the roots are written into `directory`.

    `attestors` are those beside the one for join tokens.
    """
    store = MemoryStore()
    async with (
        Authority.open(store, Sealer([b"k" * 32]), lifetimes=lifetimes or Lifetimes()) as authority,
        Identities.follow(store) as identities,
        Tokens.follow(store) as tokens,
    ):
        join_tokens = await JoinTokens.open(store, authority.trust_domain)
        enrolment = Enrolment(authority, identities, {"join-token": join_tokens, **(attestors or {})})
        membership = Membership(authority, identities, join_tokens, enrolment, nats_roots=b"")
        audit = MemoryAudit()
        own = OwnIdentity(authority, "test", [HOST, "localhost"])
        bundle = directory / "bundle.pem"
        bundle.write_bytes(authority.bundles.own.pem)
        app = FastAPI()
        access = control_access(
            tokens,
            audit,
            bundles=lambda: authority.bundles,
            observer="test",
            revoked=identities.is_revoked,
        )
        app.state.context = SimpleNamespace(membership=membership, access=access)
        app.add_middleware(Gate, access=access)
        answer_with_problems(app)
        admit(app, identity.router)
        tls = server_tls()

        def present() -> None:
            svid, key = own.held
            tls.use(svid.chain_pem, key, authority.bundles)

        present()
        with socket.create_server((HOST, port)) as listening:
            server = uvicorn.Server(server_config(app, tls, stop_timeout=1))
            serving = asyncio.create_task(_serve(server, listening))
            renewing = asyncio.create_task(own.run(present))
            await until(lambda: _started(server))
            try:
                yield AuthorityApi(Address(HOST, listening.getsockname()[1]), bundle, membership, own, audit)
            finally:
                server.should_exit = True
                await serving
                renewing.cancel()
                await asyncio.wait([renewing])


async def _started(server: uvicorn.Server) -> bool:
    return server.started


async def _serve(server: uvicorn.Server, listening: socket.socket) -> None:
    # Not `serve`, which takes over the test runner's signals.
    await server._serve(sockets=[listening])
