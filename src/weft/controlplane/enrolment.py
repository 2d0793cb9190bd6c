"""Giving out identities: to whom proves what it is, and again to whom holds one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from weft.controlplane.attestation import MAX_EVIDENCE_BYTES, Attested, Attestor
from weft.controlplane.ca.authority import Authority
from weft.controlplane.identities import Identities, Identity
from weft.errors import Denied, InvalidRequest, Unauthenticated
from weft.identity.svid import Svid
from weft.model.spiffe import Role, SpiffeId

MAX_CSR_BYTES = 16 * 1024
"""A longer certificate signing request is refused unread."""


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks for an identity, and with what proof."""

    attestor: str
    evidence: str
    instance: str


class Enrolment:
    """Decides who gets which SVID: the evidence says, never the requester."""

    def __init__(
        self, authority: Authority, identities: Identities, attestors: Mapping[str, Attestor]
    ) -> None:
        """`attestors` by the names by which applicants choose one."""
        self._authority = authority
        self._identities = identities
        self._attestors = attestors

    async def enrol(self, csr: bytes, applicant: Applicant) -> Svid:
        """A first SVID for the key in `csr` (PEM).

        Raises Unauthenticated if the evidence proves nothing, Denied if it proves somebody else or the
        identity is revoked, InvalidRequest if the request is none, Unavailable.
        """
        _check_size(csr, MAX_CSR_BYTES, "certificate signing request")
        _check_size(applicant.evidence.encode(), MAX_EVIDENCE_BYTES, "evidence")
        attestor = self._attestors.get(applicant.attestor)
        if attestor is None:
            known = ", ".join(sorted(self._attestors))
            raise InvalidRequest(f"there is no attestor {applicant.attestor[:100]!r}: use one of {known}")
        attested = await attestor.attest(applicant.evidence, instance=applicant.instance)
        return await self._issue(csr, attested)

    async def renew(self, csr: bytes, holder: SpiffeId) -> Svid:
        """A further SVID for the holder of a valid one, which was verified already.

        Raises Unauthenticated if nothing is known of the holder any more, Denied if it is revoked or the
        request names somebody else, InvalidRequest, Unavailable.
        """
        _check_size(csr, MAX_CSR_BYTES, "certificate signing request")
        if holder.trust_domain != self._authority.trust_domain:
            raise Denied(f"{holder} belongs to another trust domain, which renews it itself")
        if holder.role is Role.CONTROL:
            raise Denied(f"{holder} is a control plane's, which makes its own SVIDs")
        known = await self._identities.identity(holder)
        if known is None:
            raise Unauthenticated(f"{holder} is not known (any more): enrol anew, with a new join token")
        return await self._issue(csr, Attested(holder, known.labels, known.attested_by))

    async def _issue(self, csr: bytes, attested: Attested) -> Svid:
        name = str(attested.id)
        if self._identities.is_revoked(name):
            raise Denied(f"{name} is revoked: `weft identity restore` undoes that")
        svid = self._authority.sign(csr, attested.id)
        await self._identities.note(
            Identity(name, svid.serial, time.time(), svid.not_after, attested.by, attested.labels)
        )
        return svid


def _check_size(data: bytes, limit: int, what: str) -> None:
    if len(data) > limit:
        raise InvalidRequest(f"the {what} has {len(data)} bytes; the limit is {limit}")
