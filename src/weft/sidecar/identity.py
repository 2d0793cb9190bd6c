"""The sidecar's identity: obtained once by proof, then renewed for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from weft.aio.backoff import backoff
from weft.aio.private_file import write_private
from weft.aio.reminder import Reminder
from weft.errors import Denied, InvalidRequest, MeshError, Unauthenticated, Unavailable
from weft.identity.bundle import TrustBundles, parse_bundle
from weft.identity.certificate import uri_names
from weft.identity.keys import key_pem, new_key, signing_request
from weft.identity.svid import Svid
from weft.identity.tls import client_context
from weft.model.membership import CREDENTIALS_FILE, NATS_ROOTS_FILE, NATS_SERVERS_FILE
from weft.model.node import Address
from weft.model.spiffe import SpiffeId, parse_spiffe_id
from weft.sidecar.identity_api import IdentityApi, Issued
from weft.sidecar.sds import write_identity, write_trust
from weft.tracing.settings import TRACES_PATH

logger = logging.getLogger(__name__)

JOIN_TOKEN = "join-token"  # noqa: S105 -- its name
SERVICE_ACCOUNT = "service-account"
"""The attestors of the control plane that a sidecar can prove itself to."""

_LONGEST_PAUSE = 15.0
_JITTER = 0.1
_MAX_BUNDLE_BYTES = 1024 * 1024
_MAX_EVIDENCE_BYTES = 16 * 1024


class SidecarIdentity:
    """Who this sidecar is. `obtain` it before anything else, and have `run` keep it valid.

    The private keys are made here, and written to `directory` only, which no other user can enter.
    """

    def __init__(
        self,
        directory: Path,
        apis: Sequence[Address],
        trust: TrustBundles,
        *,
        trust_refresh: float,
        shared: Path | None = None,
        shared_with_group: bool = False,
        nats_servers: Sequence[str] = (),
    ) -> None:
        """`trust` is what is believed at first; `trust_refresh`, in seconds, how often it is asked anew.

        `shared` is for the files that the agent's program may use too, by default `directory`;
        `shared_with_group` lets this process's group read them; `nats_servers` is what that is to connect to.
        """
        self._directory = directory
        self.directory = shared or directory
        self._group = shared is not None and shared_with_group
        self._nats_servers = tuple(nats_servers)
        self._api = IdentityApi(apis)
        self._trust = trust
        self._trust_refresh = trust_refresh
        self._nats_roots = b""
        self._svid: Svid | None = None
        self._renew_at = 0.0

    @property
    def id(self) -> SpiffeId:
        """Its SPIFFE ID, as the authority decided it."""
        return self._held.id

    @property
    def trust_domain(self) -> str:
        """The mesh's, as its roots say."""
        return self._trust.own.trust_domain

    @property
    def expires_at(self) -> float:
        """When its SVID ends, in seconds since 1970."""
        return self._held.not_after

    @property
    def nats_secured(self) -> bool:
        """Whether NATS is to be talked to over TLS."""
        return bool(self._nats_roots)

    def nats_tls(self) -> ssl.SSLContext:
        """How to connect to NATS now: asked anew for every connection, since certificates change."""
        return client_context(self._nats_roots, self._credentials)

    async def obtain(self, evidence: str, instance: str, *, attestor: str = JOIN_TOKEN) -> None:
        """Get the identity that `evidence` proves: a join token, or what another `attestor` takes.

        Raises Unavailable if the control plane does not answer now, Unauthenticated or Denied if it says no.
        """
        key = new_key()
        issued = await self._api.enrol(
            signing_request(key, None),
            attestor=attestor,
            evidence=evidence,
            instance=instance,
            trust=self._trust,
        )
        self._take(issued, key_pem(key))
        logger.info("identity %s, valid until %s", self.id, _clock(self.expires_at))

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        """What the control plane's API answers this sidecar, as JSON types. Raises MeshError."""
        return await self._api.ask(method, path, self._trust, body=body, credentials=self._credentials)

    async def send_spans(self, request: bytes) -> None:
        """Have the control plane take an OTLP request. Raises MeshError."""
        await self._api.post(
            TRACES_PATH, self._trust, request, "application/x-protobuf", credentials=self._credentials
        )

    async def run(self, renewed: Callable[[], None] = lambda: None) -> None:
        """Renew the identity at half its life, and keep up with what is to be trusted.

        `renewed` is called after every renewal. While the control plane is away both are tried again and
        again. Raises Unauthenticated or Denied (in a group), saying why, once it has refused to renew.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_trust(), name="trust")
            await self._keep_identity(renewed)

    async def _keep_identity(self, renewed: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._renew_at - time.time()))
            await self._renew()
            logger.info("identity renewed, valid until %s", _clock(self.expires_at))
            renewed()

    async def _renew(self) -> None:
        now = asyncio.get_running_loop().time
        reminder = Reminder(now(), first=0.0)
        for pause in backoff(longest=_LONGEST_PAUSE):
            try:
                key = new_key()
                csr = signing_request(key, self.id)
                issued = await self._api.renew(csr, credentials=self._credentials, trust=self._trust)
                self._take(issued, key_pem(key))
            except OSError as error:
                # A disk that is full for a while is no reason to stop: what is there is good yet.
                self._note_failure(Unavailable(f"it cannot be written: {error}"), loud=reminder.due(now()))
            except Unavailable as error:
                if time.time() >= self.expires_at and await self._control_plane_answers():
                    raise self._expired(error) from error
                self._note_failure(error, loud=reminder.due(now()))
            except (Unauthenticated, Denied) as error:
                if time.time() < self.expires_at:
                    raise
                raise self._expired(error) from error
            else:
                return
            await asyncio.sleep(pause)

    async def _control_plane_answers(self) -> bool:
        """Whether it is there: whoever shows an expired certificate is hung up on, and told nothing."""
        try:
            await self._api.bundles(self._trust)
        except MeshError:
            return False
        return True

    async def _keep_trust(self) -> None:
        while True:
            await asyncio.sleep(self._trust_refresh * _jitter())
            try:
                self._trust_in(await self._api.bundles(self._trust))
            except MeshError as error:
                logger.debug("the trust bundles could not be asked for: %s", error.detail)
            except OSError as error:
                logger.warning("what is to be trusted cannot be written for Envoy, trying on: %s", error)

    def _take(self, issued: Issued, key: bytes) -> None:
        # First the roots: whoever gets to see the new certificate must be able to verify its peers'.
        self._trust_in(issued.bundles)
        self._nats_roots = issued.nats_roots
        write_identity(self._directory, issued.svid.chain_pem, key)
        self.directory.mkdir(mode=0o750 if self._group else 0o700, parents=True, exist_ok=True)
        self._share(NATS_ROOTS_FILE, issued.nats_roots)
        self._share(NATS_SERVERS_FILE, ",".join(self._nats_servers).encode())
        self._share(CREDENTIALS_FILE, issued.svid.chain_pem + key)
        self._svid = issued.svid
        left = issued.svid.not_after - time.time()
        self._renew_at = time.time() + left / 2 * _jitter()

    def _share(self, name: str, content: bytes) -> None:
        write_private(self.directory / name, content, group=self._group)

    def _trust_in(self, bundles: TrustBundles) -> None:
        if bundles.own.trust_domain != self._trust.own.trust_domain:
            raise Denied(f"the control plane is of trust domain {bundles.own.trust_domain}")
        if self._svid is None or bundles != self._trust:
            write_trust(self._directory, bundles)
            self._trust = bundles

    def _note_failure(self, error: MeshError, *, loud: bool) -> None:
        left = self.expires_at - time.time()
        if left <= 0:
            logger.error("%s", self._expired(error).detail)
        elif loud:
            logger.warning(
                "the identity cannot be renewed: %s; it expires in %.0f s, trying on", error.detail, left
            )

    def _expired(self, cause: MeshError) -> Unauthenticated:
        return Unauthenticated(
            f"the identity {self.id} expired at {_clock(self.expires_at)}, and could not be renewed in time: "
            f"{cause.detail}; others refuse its calls now, so start it anew with a new join token"
        )

    @property
    def _credentials(self) -> Path:
        return self.directory / CREDENTIALS_FILE

    @property
    def _held(self) -> Svid:
        if self._svid is None:
            raise RuntimeError("the identity has not been obtained yet")
        return self._svid


def read_trust(file: Path) -> TrustBundles:
    """What a sidecar believes at first: the roots in `file` (PEM). Raises InvalidRequest if it holds none."""
    try:
        with file.open("rb") as bundle:
            pem = bundle.read(_MAX_BUNDLE_BYTES)
        (name,) = uri_names(x509.load_pem_x509_certificates(pem)[0])
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"trust bundle {file} holds no roots of a mesh: {error}") from error
    return TrustBundles(parse_bundle(parse_spiffe_id(name).trust_domain, pem))


def read_evidence(file: Path) -> str:
    """The token in `file`. Raises Unavailable if it cannot be read now."""
    try:
        with file.open(encoding="ascii") as token:
            return token.read(_MAX_EVIDENCE_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"the token cannot be read from {file}: {error}") from error


def _jitter() -> float:
    """About 1, so that sidecars that started together don't ask together."""
    return random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 -- spreads load, hides nothing


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
