"""All that an authority is, as one value, and as sealed bytes.

It is sealed as a whole: the private keys are not to be read, and the rest, the trust bundles among it, not to
be changed by whoever can write to the store.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509

from weft.controlplane.ca.certificates import SigningKey
from weft.controlplane.sealing import SealBroken, Sealer
from weft.errors import InvalidRequest
from weft.identity.bundle import TrustBundle, TrustBundles
from weft.identity.keys import key_pem, parse_key

_FORMAT = 1
_CONTEXT = "the certificate authority's state"


@dataclass(frozen=True, slots=True)
class NextRoot:
    """A root that is trusted already, and signs once everybody has heard of it."""

    root: SigningKey
    prepared_at: float
    """When it entered the bundle, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class PreviousRoot:
    """A root that signs no more, and stays trusted for as long as something signed below it is valid."""

    certificate: bytes
    """DER."""
    until: float
    """When it leaves the bundle, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class AuthorityState:
    """An authority at one moment."""

    trust_domain: str
    root: SigningKey
    issuing: SigningKey
    """The intermediate that signs SVIDs."""
    next_root: NextRoot | None = None
    previous: tuple[PreviousRoot, ...] = ()
    """The oldest first."""
    federated: Mapping[str, TrustBundle] = field(default_factory=dict)
    revision: int = 1
    """Of the bundles: grows whenever what is trusted changes."""
    founded_at: float = 0.0
    """When the authority was first made, in seconds since 1970."""
    version: int = 1
    """Grows with every change of anything."""

    def supersedes(self, other: AuthorityState) -> bool:
        """Whether whoever knows both goes on with this one: it is the same authority's, and no earlier.

        Of two authorities, as there are if a replica starts with a store that has just lost everything, the
        older one is the one that the mesh trusts.
        """
        return (-self.founded_at, self.version) >= (-other.founded_at, other.version)

    @property
    def bundles(self) -> TrustBundles:
        """What members of the trust domain trust. Oldest roots first, so that a takeover changes nothing."""
        coming = (self.next_root.root.der,) if self.next_root else ()
        roots = (*(each.certificate for each in self.previous), self.root.der, *coming)
        return TrustBundles(TrustBundle(self.trust_domain, roots), self.federated, self.revision)


def seal_state(state: AuthorityState, sealer: Sealer) -> bytes:
    """`state` as bytes that only `sealer` can open."""
    document = {
        "format": _FORMAT,
        "foundedAt": state.founded_at,
        "version": state.version,
        "root": _signing_key(state.root),
        "issuing": _signing_key(state.issuing),
        "next": state.next_root
        and {**_signing_key(state.next_root.root), "preparedAt": state.next_root.prepared_at},
        "previous": [
            {"certificate": _text(each.certificate), "until": each.until} for each in state.previous
        ],
        "bundles": state.bundles.to_json(),
    }
    return sealer.seal(json.dumps(document, separators=(",", ":")).encode(), context=_CONTEXT)


def open_state(sealed: bytes, sealer: Sealer) -> AuthorityState:
    """The state that `seal_state` sealed. Raises SealBroken."""
    data = sealer.open(sealed, context=_CONTEXT)
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT:
            raise SealBroken(
                f"{_CONTEXT} was written by another version of Weft; use that one, or a newer one"
            )
        return _state(document)
    except (ValueError, KeyError, TypeError, InvalidRequest):
        # Without the cause: it could quote a private key.
        raise SealBroken(f"{_CONTEXT} is sealed well, but is not what Weft writes") from None


def _state(document: Mapping[str, Any]) -> AuthorityState:
    bundles = TrustBundles.from_json(document["bundles"])
    coming = document["next"]
    return AuthorityState(
        trust_domain=bundles.own.trust_domain,
        root=_parsed(document["root"]),
        issuing=_parsed(document["issuing"]),
        next_root=NextRoot(_parsed(coming), float(coming["preparedAt"])) if coming else None,
        previous=tuple(
            PreviousRoot(base64.b64decode(each["certificate"], validate=True), float(each["until"]))
            for each in document["previous"]
        ),
        federated=bundles.federated,
        revision=bundles.revision,
        founded_at=float(document["foundedAt"]),
        version=int(document["version"]),
    )


def _signing_key(pair: SigningKey) -> dict[str, object]:
    return {"certificate": _text(pair.der), "key": key_pem(pair.key).decode()}


def _parsed(document: Mapping[str, Any]) -> SigningKey:
    certificate = x509.load_der_x509_certificate(base64.b64decode(document["certificate"], validate=True))
    key = parse_key(document["key"].encode())
    if certificate.public_key() != key.public_key():
        raise ValueError("a certificate with another one's key")
    return SigningKey(certificate, key)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
