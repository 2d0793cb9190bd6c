"""Which sidecar asks or tells: by the certificate that its Envoy shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from weft.controlplane.xds.peer import AuthContext, certificate_of, svid_in
from weft.errors import Denied
from weft.identity.svid import Svid

MAX_KNOWN = 4096
"""Certificates that are kept parsed: a sidecar shows the same one with every call."""

NO_AGENT_TYPE = "caller"
"""Stands for the agent's type where there is no agent: the sidecars of operators. No agent can have it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A sidecar."""

    sidecar: str
    """Its SPIFFE ID."""
    agent_type: str
    holder: str
    """The `key` of its Node, by which it holds leases."""


class Peers:
    """Knows sidecars by what they prove."""

    def __init__(self, trust_domain: str, revoked: Callable[[str], bool]) -> None:
        """`revoked` is asked by SPIFFE ID."""
        self._trust_domain = trust_domain
        self._revoked = revoked
        self._known: dict[bytes, tuple[float, Peer]] = {}
        """By certificate: until when it holds, and whose it is."""

    def peer(self, context: AuthContext) -> Peer:
        """Who is there. Raises Unauthenticated, and Denied where it is no sidecar or was revoked."""
        shown = certificate_of(context)
        known = self._known.get(shown)
        now = time.time()
        if known is None or now > known[0]:
            svid = svid_in(shown, self._trust_domain, now=now)
            known = (svid.not_after, _peer(svid))
            while len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[shown] = known
        peer = known[1]
        if self._revoked(peer.sidecar):
            raise Denied(f"{peer.sidecar} has been revoked: its sidecar must enrol anew, under another id")
        return peer


def _peer(svid: Svid) -> Peer:
    match svid.id.segments:
        case ("agent", agent_type, instance):
            return Peer(str(svid.id), agent_type, f"{agent_type}.{instance}")
        case ("operator", _, instance):
            return Peer(str(svid.id), NO_AGENT_TYPE, f"{NO_AGENT_TYPE}.{instance}")
    raise Denied(f"{svid.id} is no sidecar: only sidecars ask about calls to models")
