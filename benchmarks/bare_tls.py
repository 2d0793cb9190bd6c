"""How the bare pair of Envoys talks: in plain text, or by mutual TLS as a person would write it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pki import Pki

from weft.aio.private_file import write_private

_TYPES = "type.googleapis.com/envoy.extensions.transport_sockets"
_CALLER = "spiffe://bare.test/caller"
_AGENT = "spiffe://bare.test/agent"


@dataclass(frozen=True, slots=True)
class Transport:
    """The transport sockets of both halves, as JSON for their configurations."""

    outbound: str
    inbound: str


def plain() -> Transport:
    """No TLS."""
    socket = json.dumps(
        {
            "name": "envoy.transport_sockets.raw_buffer",
            "typed_config": {"@type": f"{_TYPES}.raw_buffer.v3.RawBuffer"},
        }
    )
    return Transport(socket, socket)


def mutual(directory: Path) -> Transport:
    """TLS 1.3, by which each half verifies who the other one is; keys and certificates are in `directory`."""
    directory.mkdir()
    pki = Pki("bare.test")
    roots = directory / "roots.pem"
    roots.write_bytes(pki.bundle().pem)
    return Transport(
        outbound=_tls("UpstreamTlsContext", _common(directory, pki, roots, _CALLER, _AGENT), {}),
        inbound=_tls(
            "DownstreamTlsContext",
            _common(directory, pki, roots, _AGENT, _CALLER),
            {"require_client_certificate": True},
        ),
    )


def _common(directory: Path, pki: Pki, roots: Path, own: str, peer: str) -> dict[str, Any]:
    name = own.rpartition("/")[2]
    chain, key = pki.svid(own)
    chain_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    chain_file.write_bytes(chain)
    write_private(key_file, key)
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificates": [
            {"certificate_chain": {"filename": str(chain_file)}, "private_key": {"filename": str(key_file)}}
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(roots)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
    }


def _tls(kind: str, common: dict[str, Any], more: dict[str, Any]) -> str:
    context = {"@type": f"{_TYPES}.tls.v3.{kind}", "common_tls_context": common, **more}
    return json.dumps({"name": "envoy.transport_sockets.tls", "typed_config": context})
