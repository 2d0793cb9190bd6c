"""Who calls the API: an operator, by a token; a process of the mesh, by its certificate; or nobody."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, cast

from fastapi import Depends, Request

from weft.controlplane.tokens import Tokens
from weft.controlplane.translate.replies import DESTINATION_HEADER
from weft.errors import Unauthenticated
from weft.identity.bundle import TrustBundles
from weft.identity.svid import InvalidSvid, Reason, parse_svid, verify_svid
from weft.model.operator import Scope
from weft.model.spiffe import SpiffeId

_BEARER = re.compile(rb"bearer +([!-~]{1,200})", re.IGNORECASE)
_PASSED_ON = DESTINATION_HEADER.encode()  # Envoy sets it on whatever it passes on, and nothing removes it
_REMEMBERED = 4096  # certificates whose chains need not be verified at every request


@dataclass(frozen=True, slots=True)
class Operator:
    """A person or a program that has shown a token."""

    name: str
    scope: Scope

    @property
    def who(self) -> str:
        """As the audit calls it."""
        return f"operator/{self.name}"


@dataclass(frozen=True, slots=True)
class Peer:
    """A process of this mesh that has shown its certificate."""

    id: SpiffeId
    through_sidecar: bool = False
    """Its Envoy passed on what somebody else sent: the agent, or whoever reaches the sidecar's listener."""

    @property
    def who(self) -> str:
        """As the audit calls it."""
        return str(self.id)


@dataclass(frozen=True, slots=True)
class Nobody:
    """Whoever has shown nothing."""

    address: str = ""

    @property
    def who(self) -> str:
        """As the audit calls it."""
        return f"unauthenticated at {self.address}" if self.address else "unauthenticated"


Caller = Operator | Peer | Nobody


class Authentication:
    """Tells who calls."""

    def __init__(
        self,
        tokens: Tokens,
        bundles: Callable[[], TrustBundles],
        *,
        revoked: Callable[[str], bool] = lambda _spiffe_id: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`bundles` gives the current ones; `revoked` says whether a SPIFFE ID was taken back."""
        self._tokens = tokens
        self._bundles = bundles
        self._revoked = revoked
        self._clock = clock
        self._verified = lru_cache(maxsize=_REMEMBERED)(self._verify)

    @property
    def trust_domain(self) -> str:
        """The name of the mesh whose processes are known here."""
        return self._bundles().own.trust_domain

    def caller(self, scope: Mapping[str, Any]) -> Caller:
        """Who makes the request of an ASGI `scope`.

        A token counts before a certificate, and a bad one is not made good by a certificate. Raises
        Unauthenticated where what is shown proves nothing, Unavailable while this replica does not know yet.
        """
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if given:
            return self._operator(given)
        chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", ())
        if not chain:
            return Nobody(address(scope))
        passed_on = any(name == _PASSED_ON for name, _ in scope["headers"])
        return self._peer("".join(chain), through_sidecar=passed_on)

    def _operator(self, given: list[bytes]) -> Operator:
        match = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            raise Unauthenticated("the header Authorization must be one, and of the form `Bearer TOKEN`")
        record = self._tokens.check(match[1].decode())
        return Operator(record.name, record.scope)

    def _peer(self, chain_pem: str, *, through_sidecar: bool) -> Peer:
        spiffe_id, expires = self._verified(chain_pem, self._bundles().revision)
        if expires <= self._clock():
            raise InvalidSvid(Reason.EXPIRED, f"that of {spiffe_id} has expired on this connection")
        if self._revoked(str(spiffe_id)):
            raise Unauthenticated(f"the identity {spiffe_id} is revoked")
        return Peer(spiffe_id, through_sidecar)

    def _verify(self, chain_pem: str, _revision: int) -> tuple[SpiffeId, float]:
        """Whom a chain proves, and until when."""
        bundles = self._bundles()
        svid = parse_svid(chain_pem.encode())
        spiffe_id = verify_svid(svid, bundles, now=self._clock())
        if spiffe_id.trust_domain != bundles.own.trust_domain:
            raise InvalidSvid(
                Reason.WRONG_TRUST_DOMAIN,
                f"{spiffe_id} may call agents of {bundles.own.trust_domain!r}, but not its control plane",
            )
        return spiffe_id, min(each.not_valid_after_utc.timestamp() for each in svid.chain)


def address(scope: Mapping[str, Any]) -> str:
    """Where the client of an ASGI `scope` is; empty if that is not known."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _current_caller(request: Request) -> Caller:
    return cast(Caller, request.scope["state"]["caller"])


CurrentCaller = Annotated[Caller, Depends(_current_caller)]
"""An endpoint's parameter of this type gets who calls."""
