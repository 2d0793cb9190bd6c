"""The keys that an installation on a cluster begins with."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from kubernetes_validate import validate

from weft.controlplane.sealing import sealer_from
from weft.errors import InvalidRequest
from weft.identity.tls import client_context
from weft.kubernetes.first_keys import first_keys, nats_hosts
from weft.model.operator import is_token
from weft.store.nats_callout import public_nkey

VERSIONS = ["1.30", "1.34", "1.37"]


def made() -> dict[str, dict[str, bytes]]:
    """What is in the Secrets, by name."""
    return {each["metadata"]["name"]: opened(each) for each in first_keys("weft", "mesh")}


def opened(secret: dict[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(value, validate=True) for key, value in secret["data"].items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_they_are_secrets_as_kubernetes_has_them(version: str) -> None:
    for each in first_keys("weft", "mesh"):
        validate(each, version, strict=True)


def test_they_are_apart_by_who_needs_them() -> None:
    found = made()
    assert {name: sorted(data) for name, data in found.items()} == {
        "weft-nats": [
            *("control.pem", "control.public", "control.seed", "issuer.public", "issuer.seed"),
            *("roots.pem", "server.key", "server.pem"),
        ],
        "weft-sealing-key": ["sealing.key"],
        "weft-operator-token": ["token"],
        "weft-webhook": ["ca.crt", "tls.crt", "tls.key"],
    }
    assert is_token(found["weft-operator-token"]["token"].decode().strip())


def test_they_are_others_each_time() -> None:
    first, second = made(), made()
    for name, data in first.items():
        assert not set(data.values()) & set(second[name].values())


def test_the_sealing_key_is_one_that_a_control_plane_takes_from_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEY", made()["weft-sealing-key"]["sealing.key"].decode())
    sealer = sealer_from("env:KEY")
    assert sealer.open(sealer.seal(b"text", context="test"), context="test") == b"text"


def test_public_nkeys_are_those_of_the_seeds() -> None:
    nats = made()["weft-nats"]
    assert nats["control.public"].decode() == public_nkey(nats["control.seed"])
    assert nats["issuer.public"].decode() == public_nkey(nats["issuer.seed"])


@pytest.mark.parametrize(
    "host",
    [
        *("weft-nats", "weft-nats.mesh", "weft-nats.mesh.svc", "weft-nats.mesh.svc.cluster.local"),
        *("weft-nats-2.weft-nats.mesh", "weft-nats-2.weft-nats.mesh.svc.cluster.local", "127.0.0.1"),
    ],
)
def test_a_client_knows_nats_by_every_name_it_has_in_the_cluster(host: str, tmp_path: Path) -> None:
    assert _handshake(host, tmp_path) == ""


@pytest.mark.parametrize("host", ["other-nats", "weft-nats.other.svc", "a.b.weft-nats.mesh.svc"])
def test_a_client_knows_it_by_no_other_name(host: str, tmp_path: Path) -> None:
    assert "certificate verify failed" in _handshake(host, tmp_path)


def test_servers_of_a_cluster_are_clients_of_each_other() -> None:
    certificate = x509.load_pem_x509_certificate(made()["weft-nats"]["server.pem"])
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_hosts_have_the_domain_of_the_cluster() -> None:
    assert "*.weft-nats.mesh.svc.corp.example" in nats_hosts("weft", "mesh", "corp.example")


def test_a_bad_name_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="name"):
        first_keys("We ft", "mesh")


def _handshake(host: str, directory: Path) -> str:
    """Why the control plane does not take a NATS at `host` for its own; empty if it does."""
    files = made()["weft-nats"]
    for name, content in files.items():
        (directory / name).write_bytes(content)
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(directory / "server.pem", directory / "server.key")
    accepting.load_verify_locations(cafile=str(directory / "roots.pem"))
    accepting.verify_mode = ssl.CERT_REQUIRED
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    trust = client_context(files["roots.pem"], directory / "control.pem")
    client = trust.wrap_bio(down, up, server_hostname=host)
    server = accepting.wrap_bio(up, down, server_side=True)
    try:
        for side in (client, server, client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLError as error:
        return str(error)
    return "" if client.version() and server.version() else "not done"
