"""The certificates of webhooks: made, used, replaced; and whom API servers believe."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest

from weft.errors import InvalidRequest
from weft.kubernetes.first_keys import webhook_hosts
from weft.kubernetes.webhook.certificates import (
    MAX_AUTHORITIES,
    ServingKeys,
    authorities,
    believed,
    read_bundle,
    webhook_keys,
)

HOSTS = webhook_hosts("weft", "mesh")


def write(directory: Path) -> bytes:
    """New keys in `directory`; their authority."""
    keys = webhook_keys(HOSTS)
    for name, content in keys.items():
        (directory / name).write_bytes(content)
    return keys["ca.crt"]


def handshake(keys: ServingKeys, authority: bytes, host: str = "weft-webhook.mesh.svc") -> str:
    """Why an API server does not believe a webhook; empty if it does."""
    trust = ssl.create_default_context(cadata=authority.decode())
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(down, up, server_hostname=host)
    server = keys.tls.wrap_bio(up, down, server_side=True)
    try:
        for side in (client, server, client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLError as error:
        return str(error)
    return "" if client.version() else "not done"


@pytest.mark.parametrize("host", HOSTS)
def test_an_api_server_believes_it_by_every_name_of_its_service(host: str, tmp_path: Path) -> None:
    authority = write(tmp_path)
    assert handshake(ServingKeys(tmp_path), authority, host) == ""


@pytest.mark.parametrize("host", ["weft-webhook.other.svc", "weft-control.mesh.svc"])
def test_it_is_believed_by_no_other_name(host: str, tmp_path: Path) -> None:
    authority = write(tmp_path)
    assert "certificate verify failed" in handshake(ServingKeys(tmp_path), authority, host)


def test_old_tls_is_not_spoken(tmp_path: Path) -> None:
    write(tmp_path)
    assert ServingKeys(tmp_path).tls.minimum_version is ssl.TLSVersion.TLSv1_2


def test_keys_that_are_replaced_are_used_from_then_on(tmp_path: Path) -> None:
    first = write(tmp_path)
    keys = ServingKeys(tmp_path)
    assert not keys.refresh()
    second = write(tmp_path)
    assert keys.refresh()
    assert keys.authority == second
    assert handshake(keys, second) == ""
    assert "certificate verify failed" in handshake(keys, first)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("tls.key", None, "tls.key cannot be read"),
        ("ca.crt", b"", "holds no certificates"),
        ("ca.crt", b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n", "holds no certificates"),
        ("tls.crt", b"", "no certificate and its key"),
        ("tls.key", webhook_keys(HOSTS)["tls.key"], "no certificate and its key"),
    ],
)
def test_keys_that_make_no_sense_are_refused_and_those_before_go_on(
    name: str, content: bytes | None, told: str, tmp_path: Path
) -> None:
    authority = write(tmp_path)
    keys = ServingKeys(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequest, match=told):
        keys.refresh()
    assert handshake(keys, authority) == ""
    with pytest.raises(InvalidRequest, match=told):
        ServingKeys(tmp_path)


def made() -> bytes:
    return webhook_keys(HOSTS)["ca.crt"]


@pytest.mark.parametrize("before", ["", "Cg==", "no base64", base64.b64encode(b"no certificate").decode()])
def test_an_authority_is_put_where_none_is(before: str) -> None:
    authority = made()
    bundle = believed(before, authority)
    assert bundle is not None
    assert read_bundle(bundle) == authorities(authority)


def test_where_it_is_already_nothing_is_changed() -> None:
    authority = made()
    bundle = believed("", authority)
    assert bundle is not None
    assert believed(bundle, authority) is None


def test_two_pods_with_different_keys_leave_each_others_authority_there() -> None:
    old, new = made(), made()
    bundle = believed(believed("", old) or "", new)
    assert bundle is not None
    assert read_bundle(bundle) == [*authorities(new), *authorities(old)]
    assert believed(bundle, old) is None, "the one that has the old keys yet changes nothing back"


def test_old_ones_go_when_there_are_too_many() -> None:
    bundle, every = "", []
    for _ in range(MAX_AUTHORITIES + 2):
        every.append(made())
        bundle = believed(bundle, every[-1]) or bundle
    found = read_bundle(bundle)
    assert len(found) == MAX_AUTHORITIES
    assert found == [authorities(each)[0] for each in reversed(every)][:MAX_AUTHORITIES]
