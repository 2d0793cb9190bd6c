"""Identities over HTTP: how sidecars get and renew one, and how operators watch over them."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field

from weft.controlplane.api.access import MEMBERS, requires
from weft.controlplane.api.authentication import CurrentCaller, Operator, Peer
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Audited, CurrentAccess, CurrentMembership
from weft.controlplane.ca.rotation import Level
from weft.controlplane.enrolment import MAX_CSR_BYTES, Applicant
from weft.controlplane.join_tokens import DEFAULT_LIFETIME, MAX_LIFETIME
from weft.controlplane.membership import Membership
from weft.errors import Denied, MeshError
from weft.identity.bundle import TrustBundles
from weft.identity.svid import Svid
from weft.model.agent_spec import Labels
from weft.model.operator import Scope
from weft.model.spiffe import parse_spiffe_id

router = APIRouter(prefix="/v1", tags=["identity"])

MAX_BUNDLE_BYTES = 256 * 1024

_VIEWER = [Depends(requires(Scope.VIEWER))]
_OPERATOR = [Depends(requires(Scope.OPERATOR))]
_ADMIN = [Depends(requires(Scope.ADMIN))]

Csr = Annotated[str, Field(max_length=MAX_CSR_BYTES)]


class Application(Body):
    """A process that wants an identity."""

    csr: Csr
    """A certificate signing request (PKCS #10, PEM). Its names are not asked for: evidence decides."""
    attestor: Annotated[str, Field(max_length=63)]
    """How it proves itself: `join-token`, or `service-account` on Kubernetes."""
    evidence: Annotated[str, Field(max_length=16 * 1024)]
    """The proof: the token."""
    instance: Annotated[str, Field(max_length=63)]
    """The instance's id."""


class Renewal(Body):
    """A holder of an identity that wants to go on holding it."""

    csr: Csr


class Issued(Body):
    """An identity."""

    spiffe_id: str
    chain: str
    """The X509-SVID and its intermediate, PEM."""
    bundles: dict[str, Any]
    """What is to be trusted, as /v1/trust-bundles gives it."""
    nats_roots: str
    """PEM of the authorities of NATS's own certificate; empty if NATS is without TLS."""


class JoinTokenToMake(Body):
    """Who may join."""

    type: Annotated[str, Field(max_length=63)] | None = None
    """The agent's type; without it, a sidecar without an agent, which acts for the operator who asks."""
    instance: Annotated[str, Field(max_length=63)]
    labels: Labels = {}
    """What is attested of it: AccessPolicies may go by it."""
    expires_in: Annotated[float, Field(ge=1, le=MAX_LIFETIME)] = DEFAULT_LIFETIME
    """Seconds."""


class NewJoinToken(Body):
    """A join token, good once."""

    token: str
    spiffe_id: str
    expires_at: float
    """Seconds since 1970."""


class IdentityOut(Body):
    """An identity that somebody holds."""

    spiffe_id: str
    serial: str
    issued_at: float
    expires_at: float
    """Seconds since 1970."""
    attested_by: str
    labels: dict[str, str]
    revoked: bool = False


class IdentityList(Body):
    """All identities that are held, by SPIFFE ID."""

    items: list[IdentityOut]


class AuthorityOut(Body):
    """The certificate authority. Fingerprints are SHA-256, in hexadecimal; times in seconds since 1970."""

    trust_domain: str
    root: str
    root_expires_at: float
    issuing: str
    issuing_expires_at: float
    next_root: str | None
    next_root_takes_over_at: float | None
    previous_roots: int
    federated: tuple[str, ...]
    bundle_revision: int
    now: float
    """This replica's clock."""


class Rotation(Body):
    """Which of the authority's levels is to be replaced."""

    level: Level


class RevocationToMake(Body):
    """Which identity is taken back, and why."""

    spiffe_id: Annotated[str, Field(max_length=2048)]
    reason: Annotated[str, Field(max_length=256)] = ""


class Bundle(Body):
    """The roots of another trust domain."""

    pem: Annotated[str, Field(max_length=MAX_BUNDLE_BYTES)]


@router.post("/identity", status_code=201)
async def enrol(
    membership: CurrentMembership, access: CurrentAccess, caller: CurrentCaller, body: Application
) -> Issued:
    """Get a first identity. Whoever asks proves what it is by the evidence, not by whom it says to be."""
    try:
        svid = await membership.enrolment.enrol(
            body.csr.encode(), Applicant(body.attestor, body.evidence, body.instance)
        )
    except MeshError as error:
        access.recorder.denied(caller.who, "issue svid", f"instance {body.instance}", error.detail)
        raise
    access.recorder.done(str(svid.id), "issue svid", str(svid.id), serial=svid.serial)
    return _issued(membership, svid)


@router.post(
    "/identity/renewal",
    # Whoever reaches a sidecar's listener must not get a key for its identity.
    dependencies=[Depends(requires(Scope.ADMIN, peers=MEMBERS, in_person=True))],
)
async def renew(
    membership: CurrentMembership, access: CurrentAccess, caller: CurrentCaller, body: Renewal
) -> Issued:
    """Get a further certificate for the identity that the caller's own proves."""
    try:
        if not isinstance(caller, Peer):
            raise Denied("only a process with a certificate of the mesh has an identity to renew")
        svid = await membership.enrolment.renew(body.csr.encode(), caller.id)
    except MeshError as error:
        access.recorder.denied(caller.who, "renew svid", caller.who, error.detail)
        raise
    return _issued(membership, svid)


@router.get("/trust-bundles")
async def trust_bundles(membership: CurrentMembership) -> dict[str, Any]:
    """What members of this trust domain trust: its roots, and those of federated trust domains."""
    return _bundles(membership.authority.bundles)


@router.put("/trust-bundles/{trust_domain}", status_code=204, dependencies=_ADMIN)
async def federate(membership: CurrentMembership, changes: Audited, trust_domain: str, body: Bundle) -> None:
    """Believe these roots for the names of another trust domain, and for nothing else."""
    await membership.authority.federate(trust_domain, body.pem.encode())
    changes.note("federate", f"trust domain {trust_domain}")


@router.delete("/trust-bundles/{trust_domain}", status_code=204, dependencies=_ADMIN)
async def unfederate(membership: CurrentMembership, changes: Audited, trust_domain: str) -> None:
    """Believe nobody of another trust domain any more."""
    await membership.authority.unfederate(trust_domain)
    changes.note("unfederate", f"trust domain {trust_domain}")


@router.get("/identities", dependencies=_VIEWER)
async def identities(membership: CurrentMembership) -> IdentityList:
    """Every identity that is held now."""
    known = membership.identities
    return IdentityList(
        items=[
            IdentityOut(
                spiffe_id=each.spiffe_id,
                serial=each.serial,
                issued_at=each.issued_at,
                expires_at=each.expires_at,
                attested_by=each.attested_by,
                labels=dict(each.labels),
                revoked=known.is_revoked(each.spiffe_id),
            )
            for each in known.given
        ]
    )


@router.post("/join-tokens", status_code=201, dependencies=_OPERATOR)
async def make_join_token(
    membership: CurrentMembership, caller: CurrentCaller, changes: Audited, body: JoinTokenToMake
) -> NewJoinToken:
    """Make a token with which one process can get one identity, once."""
    operator = caller.name if isinstance(caller, Operator) else ""
    made = await membership.join_tokens.invite(
        agent_type=body.type,
        instance=body.instance,
        operator=operator,
        labels=body.labels,
        lifetime=body.expires_in,
    )
    changes.note("make join token", str(made.id), seconds=f"{math.ceil(body.expires_in)}")
    return NewJoinToken(token=made.token, spiffe_id=str(made.id), expires_at=made.expires_at)


@router.get("/authority", dependencies=_VIEWER)
async def authority(membership: CurrentMembership) -> AuthorityOut:
    """The certificate authority, and where its rotation stands."""
    return _authority(membership)


@router.post("/authority/rotations", status_code=202, dependencies=_ADMIN)
async def rotate(membership: CurrentMembership, changes: Audited, body: Rotation) -> AuthorityOut:
    """Replace the intermediate now, or begin to replace the root."""
    await membership.authority.rotate(body.level)
    changes.note("rotate authority", body.level.value)
    return _authority(membership)


@router.post("/revocations", status_code=204, dependencies=_ADMIN)
async def revoke(
    membership: CurrentMembership, caller: CurrentCaller, changes: Audited, body: RevocationToMake
) -> None:
    """Take an identity back, until it is restored."""
    spiffe_id = parse_spiffe_id(body.spiffe_id)
    await membership.identities.revoke(spiffe_id, by=caller.who, reason=body.reason)
    changes.note("revoke identity", str(spiffe_id), reason=body.reason)


@router.delete("/revocations", status_code=204, dependencies=_ADMIN)
async def restore(membership: CurrentMembership, changes: Audited, spiffe_id: str) -> None:
    """Undo a revocation."""
    identity = parse_spiffe_id(spiffe_id)
    await membership.identities.restore(identity)
    changes.note("restore identity", str(identity))


def _authority(membership: Membership) -> AuthorityOut:
    return AuthorityOut(now=time.time(), **asdict(membership.authority.status))


def _issued(membership: Membership, svid: Svid) -> Issued:
    return Issued(
        spiffe_id=str(svid.id),
        chain=svid.chain_pem.decode(),
        bundles=_bundles(membership.authority.bundles),
        nats_roots=membership.nats_roots.decode(),
    )


def _bundles(bundles: TrustBundles) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bundles.to_json())
    return document
