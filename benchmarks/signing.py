"""How many certificate signing requests the authority signs, in its own process and over the API."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median

import aiohttp
from benchmarks.progress import step
from benchmarks.report import Figure, Result
from benchmarks.rig import HOST, Rig, rig
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from weft.aio.private_file import write_private
from weft.controlplane.ca.authority import Authority
from weft.controlplane.sealing import Sealer
from weft.identity.keys import key_pem, new_key, signing_request
from weft.identity.tls import client_context
from weft.model.node import Address
from weft.model.spiffe import SpiffeId
from weft.sidecar.identity_api import IdentityApi
from weft.store.memory import MemoryStore

CLIENTS = 8
"""Sidecars that ask the API at the same time, each over a connection of its own."""

_TYPE = "signed"
_REQUESTS = 100

Request = Callable[[], Awaitable[None]]


async def measure(*, quick: bool = False) -> Result:
    """Sign in interleaved rounds: by the authority, by bare `cryptography`, and over the API."""
    rounds, seconds = (2, 0.3) if quick else (5, 1.0)
    step("signing: the authority alone")
    own, bare = await _in_process(rounds, seconds)
    async with rig() as mesh, _clients(mesh) as clients:
        step(f"signing: {CLIENTS} clients of the API")
        renewals, bundles = [], []
        for _ in range(rounds):
            renewals.append(await _together([each.renew for each in clients], seconds))
            bundles.append(await _together([each.read_bundles for each in clients], seconds))
    figures = (
        Figure("signed by the authority", median(own), "CSRs/s", median(bare), "bare cryptography"),
        Figure(
            f"renewals over the API, {CLIENTS} clients",
            median(renewals),
            "requests/s",
            median(bundles),
            "reads of trust bundles",
        ),
    )
    notes = (
        f"medians of {rounds} interleaved rounds of {seconds:g} s; ECDSA P-256, one process",
        "bare cryptography: parse the request, verify it, sign a certificate of the same extensions",
        "over the API: mutual TLS, connections that stay; what is signed is noted in the store; the clients "
        "are one process on the same machine",
    )
    return Result("Certificate signing", figures, notes)


async def _in_process(rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """CSRs a second, by the authority and by `cryptography` alone."""
    async with Authority.open(MemoryStore(), Sealer([b"k" * 32])) as authority:
        identity = SpiffeId(authority.trust_domain, f"/agent/{_TYPE}/{_TYPE}-1")
        requests = itertools.cycle([signing_request(new_key(), identity) for _ in range(_REQUESTS)])
        pattern, key = authority.sign(next(requests), identity).leaf, new_key()
        own, bare = [], []
        for _ in range(rounds):
            own.append(_rate(lambda: authority.sign(next(requests), identity), seconds))
            bare.append(_rate(lambda: _sign_bare(next(requests), pattern, key), seconds))
    return own, bare


def _sign_bare(csr: bytes, pattern: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    request = x509.load_pem_x509_csr(csr)
    assert request.is_signature_valid
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        subject_name=pattern.subject,
        issuer_name=pattern.issuer,
        public_key=request.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now,
        not_valid_after=now + datetime.timedelta(hours=1),
    )
    for each in pattern.extensions:
        builder = builder.add_extension(each.value, each.critical)
    builder.sign(key, hashes.SHA256())


def _rate(work: Callable[[], object], seconds: float) -> float:
    """How often `work` is done in a second."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        work()
        done += 1
    return done / (time.perf_counter() - began)


class Client:
    """A sidecar, as far as the API can tell."""

    def __init__(self, http: aiohttp.ClientSession, csr: bytes) -> None:
        self._http = http
        self._csr = csr.decode()

    async def renew(self) -> None:
        """Get a further certificate."""
        await self._ask("POST", "/v1/identity/renewal", {"csr": self._csr})

    async def read_bundles(self) -> None:
        """Ask for what costs the API next to nothing."""
        await self._ask("GET", "/v1/trust-bundles")

    async def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> None:
        async with self._http.request(method, path, json=body) as answer:
            content = await answer.read()
            if not answer.ok:
                raise RuntimeError(f"{method} {path} is answered with {answer.status}: {content[:500]!r}")


@asynccontextmanager
async def _clients(mesh: Rig) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        yield [await _client(mesh, f"{_TYPE}-{number}", stack) for number in range(1, CLIENTS + 1)]


async def _client(mesh: Rig, instance: str, stack: AsyncExitStack) -> Client:
    trust, key = await mesh.mesh.api.trust_bundles(), new_key()
    csr = signing_request(key)
    api = IdentityApi([Address(HOST, mesh.mesh.ports.api)])
    token = await mesh.mesh.api.join_token(_TYPE, instance, {})
    issued = await api.enrol(csr, attestor="join-token", evidence=token, instance=instance, trust=trust)
    credentials = mesh.directory / f"{instance}.pem"
    write_private(credentials, issued.svid.chain_pem + key_pem(key))
    connector = aiohttp.TCPConnector(ssl=client_context(trust.own.pem, credentials))
    http = aiohttp.ClientSession(mesh.mesh.api_url, connector=connector)
    return Client(await stack.enter_async_context(http), csr)


async def _together(requests: list[Request], seconds: float) -> float:
    """Requests a second of all clients together."""
    began, done = time.perf_counter(), 0

    async def ask(request: Request) -> None:
        nonlocal done
        while time.perf_counter() < began + seconds:
            await request()
            done += 1

    async with asyncio.TaskGroup() as asking:
        for each in requests:
            asking.create_task(ask(each))
    return done / (time.perf_counter() - began)
