"""The secrets of one sidecar's Envoy, as files that Envoy watches (SDS by path).

Each file holds one secret inline and is replaced as a whole: a certificate never stands beside another's key.
Envoy finds them by paths relative to its working directory, the sidecar's runtime directory: so the control
plane can name them without knowing where they are, and the key is nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from weft.aio.private_file import write_private
from weft.identity.bundle import TrustBundle, TrustBundles
from weft.model.sds import IDENTITY, OWN_TRUST, TRUST, secret_file

_TYPE = "type.googleapis.com/"
_SECRET = _TYPE + "envoy.extensions.transport_sockets.tls.v3.Secret"
_SPIFFE = _TYPE + "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"


def write_identity(directory: Path, chain_pem: bytes, key_pem: bytes) -> None:
    """Have Envoy use this certificate chain, leaf first, and its private key. Raises OSError."""
    certificate = {
        "certificate_chain": {"inline_string": chain_pem.decode("ascii")},
        "private_key": {"inline_string": key_pem.decode("ascii")},
    }
    _write(directory, IDENTITY, {"tls_certificate": certificate})


def write_trust(directory: Path, bundles: TrustBundles) -> None:
    """Have Envoy believe callers from all trust domains in `bundles`, servers from the own one only.

    Raises OSError.
    """
    _write(directory, TRUST, _validation(bundles.all))
    _write(directory, OWN_TRUST, _validation([bundles.own]))


def _validation(bundles: Iterable[TrustBundle]) -> dict[str, Any]:
    # The roots of one trust domain vouch for its own names only: this validator sees to it.
    domains = [
        {"name": each.trust_domain, "trust_bundle": {"inline_string": each.pem.decode("ascii")}}
        for each in bundles
    ]
    validator = {
        "name": "envoy.tls.cert_validator.spiffe",
        "typed_config": {"@type": _SPIFFE, "trust_domains": domains},
    }
    return {"validation_context": {"custom_validator_config": validator}}


def _write(directory: Path, name: str, secret: dict[str, Any]) -> None:
    """Replace the file by a rename, which is what Envoy watches for."""
    content = json.dumps({"resources": [{"@type": _SECRET, "name": name, **secret}]})
    write_private(directory / secret_file(name), content.encode("ascii"))
