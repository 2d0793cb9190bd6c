"""What proves who is who, to this replica of the control plane and by it, opened together."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from weft.aio.private_file import write_private
from weft.audit.trail import Audit
from weft.controlplane.api.recorder import Recorder
from weft.controlplane.attestation import Attestor
from weft.controlplane.ca.authority import Authority
from weft.controlplane.ca.lifetimes import Lifetimes
from weft.controlplane.enrolment import Enrolment
from weft.controlplane.identities import Identities
from weft.controlplane.join_tokens import JoinTokens
from weft.controlplane.membership import Membership
from weft.controlplane.own_identity import OwnIdentity
from weft.controlplane.pods import PodAdmission
from weft.controlplane.sealing import Sealer, sealer_from
from weft.controlplane.service_accounts import ServiceAccounts
from weft.controlplane.settings import ControlPlaneSettings
from weft.controlplane.tokens import Tokens
from weft.controlplane.xds.credentials import ServerIdentity
from weft.errors import InvalidRequest
from weft.identity.pod_access import PodAccess
from weft.identity.tls import client_context
from weft.model.node import Node, parse_address
from weft.model.operator import Scope
from weft.model.subjects import identity_subject
from weft.store.bucket import Store
from weft.store.nats_callout import ConnectingClient

MAX_FILE_BYTES = 1024 * 1024

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Security:
    """Everything that has to do with identity, of one replica."""

    membership: Membership
    own: OwnIdentity
    tokens: Tokens
    audit: Audit
    recorder: Recorder
    """Writes down in it whom others than the API refused."""
    replica: str

    @property
    def authority(self) -> Authority:
        """Who vouches for identities."""
        return self.membership.authority

    @property
    def identities(self) -> Identities:
        """Who has one, or has none any more."""
        return self.membership.identities

    def server_identity(self) -> ServerIdentity:
        """What the xDS server proves itself with, and by which roots it believes sidecars, now."""
        svid, key = self.own.held
        return ServerIdentity(svid.chain_pem, key, self.authority.bundles.own.pem)

    def note_denied_stream(self, who: str, node: Node | None, reason: str) -> None:
        """Write down that somebody was refused configuration."""
        target = f"sidecar/{node.key}" if node is not None else "xds"
        self.recorder.denied(who, "get configuration", target, reason)

    def note_refused_client(self, client: ConnectingClient, reason: str) -> None:
        """Write down that NATS was told to refuse somebody."""
        self.recorder.denied(f"unauthenticated at {client.host}", "connect", "nats", reason)


@asynccontextmanager
async def open_security(
    settings: ControlPlaneSettings, store: Store, sealer: Sealer
) -> AsyncIterator[Security]:
    """Within the context, all of it, kept up to date.

    Raises InvalidRequest where a setting makes no sense, SealBroken if the sealing key is not the one of this
    mesh, Unavailable.
    """
    lifetimes = Lifetimes(svid=settings.svid_lifetime, propagation=settings.trust_propagation)
    async with AsyncExitStack() as stack:
        authority = await stack.enter_async_context(
            Authority.open(store, sealer, trust_domain=settings.trust_domain, lifetimes=lifetimes)
        )
        identities = await stack.enter_async_context(Identities.follow(store))
        tokens = await stack.enter_async_context(Tokens.follow(store))
        if settings.operator_token_file is not None:
            token = _read(settings.operator_token_file).decode().strip()
            await tokens.adopt(token, settings.operator, Scope.ADMIN)
        own = OwnIdentity(authority, settings.replica, _hosts(settings))
        audit = await stack.enter_async_context(await Audit.open(store, identity_subject(own.held[0].id)))
        join_tokens = await JoinTokens.open(store, settings.trust_domain)
        roots = _read(settings.nats_roots_file) if settings.nats_roots_file is not None else b""
        enrolment = Enrolment(authority, identities, _attestors(settings, join_tokens))
        yield Security(
            Membership(authority, identities, join_tokens, enrolment, roots),
            own,
            tokens,
            audit,
            Recorder(audit, settings.replica),
            settings.replica,
        )


def open_sealer(settings: ControlPlaneSettings) -> Sealer:
    """What seals the authority's keys, and Secrets. Raises InvalidRequest."""
    if not settings.sealing_key:
        raise InvalidRequest(
            "--sealing-key (WEFT_CONTROL_SEALING_KEY) is missing: say where the key is that seals what is "
            "kept in NATS. Make one: `(umask 077; head -c 32 /dev/urandom | base64 > sealing.key)`, then "
            "--sealing-key file:sealing.key"
        )
    return sealer_from(settings.sealing_key)


def nats_tls(settings: ControlPlaneSettings) -> Callable[[], ssl.SSLContext] | None:
    """How to connect to NATS; None where it is without TLS. Raises InvalidRequest."""
    roots, credentials = settings.nats_roots_file, settings.nats_credentials_file
    if roots is None and credentials is None:
        return None
    if roots is None or credentials is None:
        raise InvalidRequest("--nats-roots-file and --nats-credentials-file go together: give both")
    return lambda: client_context(_read(roots), credentials)


def write_bundle(file: Path | None, authority: Authority) -> None:
    """Tell other processes on this machine of the mesh's roots, if there is a file for that."""
    if file is not None:
        write_private(file, authority.bundles.own.pem)


def _attestors(settings: ControlPlaneSettings, join_tokens: JoinTokens) -> Mapping[str, Attestor]:
    attestors: dict[str, Attestor] = {"join-token": join_tokens}
    if (pods := _pods(settings)) is not None:
        attestors["service-account"] = pods
    return attestors


def _pods(settings: ControlPlaneSettings) -> Attestor | None:
    """Who says which pod it is that comes with a service account token; None where none can."""
    admission = PodAdmission(settings.trust_domain, frozenset(settings.service_account_namespaces))
    issuer, keys = settings.service_account_issuer, settings.service_account_keys_file
    if bool(issuer) != bool(keys):
        raise InvalidRequest(
            "--service-account-issuer and --service-account-keys-file go together: give both"
        )
    if settings.service_account_review:
        if keys is not None:
            raise InvalidRequest(
                "--service-account-review asks the cluster, which knows its issuer and keys: leave out "
                "--service-account-issuer and --service-account-keys-file"
            )
        # With an HTTP client, which only those in a cluster need.
        from weft.controlplane.token_reviews import TokenReviews  # noqa: PLC0415

        return TokenReviews(admission, lambda: PodAccess.of(os.environ))
    if keys is not None:
        return ServiceAccounts(admission, issuer=issuer, keys=keys)
    if admission.namespaces:
        raise InvalidRequest(
            "--service-account-namespaces limits which pods are believed, and none are: give "
            "--service-account-review, or --service-account-issuer and --service-account-keys-file"
        )
    return None


def _hosts(settings: ControlPlaneSettings) -> list[str]:
    advertised = [parse_address(settings.advertise_api).host] if settings.advertise_api else []
    return sorted({*_THIS_MACHINE, settings.host, *advertised, *settings.names})


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            return source.read(MAX_FILE_BYTES)
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror or error}") from error
