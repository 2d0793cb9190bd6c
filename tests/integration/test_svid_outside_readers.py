"""Other implementations read what Weft issues, and find the same in it: OpenSSL, and SPIFFE's own library."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import X509Bundle, X509Svid
from spiffe.spiffe_id.spiffe_id import TrustDomain

from weft.controlplane.ca.authority import Authority
from weft.controlplane.ca.rotation import Level
from weft.controlplane.sealing import Sealer
from weft.identity.keys import key_pem, new_key, signing_request
from weft.identity.svid import Svid
from weft.model.spiffe import agent_id
from weft.store.memory import MemoryStore

ME = agent_id("weft.local", "worker", "w1")


@dataclass(frozen=True, slots=True)
class _Issued:
    svid: Svid
    key: bytes
    bundle: bytes


@pytest.fixture
async def authority() -> AsyncIterator[Authority]:
    store = MemoryStore()
    async with Authority.open(store, Sealer([os.urandom(32)])) as authority:
        yield authority
    await store.close()


def _issue(authority: Authority) -> _Issued:
    key = new_key()
    svid = authority.sign(signing_request(key, ME), ME, dns_names=["localhost"], ip_addresses=["127.0.0.1"])
    return _Issued(svid, key_pem(key), authority.bundles.own.pem)


async def test_the_spiffe_library_reads_our_svids_and_bundles(authority: Authority) -> None:
    issued = _issue(authority)
    svid = X509Svid.parse(issued.svid.chain_pem, issued.key)
    assert str(svid.spiffe_id) == str(ME)
    assert len(svid.cert_chain) == 2
    await authority.rotate(Level.ROOT)
    bundle = X509Bundle.parse(TrustDomain("weft.local"), authority.bundles.own.pem)
    assert {each.public_bytes(Encoding.DER) for each in bundle.x509_authorities} == set(
        authority.bundles.own.roots
    )
    assert len(bundle.x509_authorities) == 2


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed here; CI has it")
@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
async def test_openssl_verifies_our_svids(authority: Authority, purpose: str, tmp_path: Path) -> None:
    issued = _issue(authority)
    assert _openssl(issued, tmp_path, "-purpose", purpose) == (0, "")
    assert _openssl(issued, tmp_path, "-purpose", purpose, "-verify_ip", "127.0.0.1") == (0, "")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed here; CI has it")
async def test_openssl_refuses_our_svids_where_it_should(authority: Authority, tmp_path: Path) -> None:
    issued = _issue(authority)
    status, why = _openssl(issued, tmp_path, "-attime", str(int(time.time() + 3700)))
    assert status != 0
    assert "expired" in why
    stranger = _Issued(issued.svid, issued.key, bundle=_without_authority(tmp_path))
    assert _openssl(stranger, tmp_path)[0] != 0


def _without_authority(directory: Path) -> bytes:
    """The certificate of somebody else."""
    key, certificate = directory / "other.key", directory / "other.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    options = ["-subj", "/CN=other", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *options], check=True, capture_output=True, timeout=30)
    return certificate.read_bytes()


def _openssl(issued: _Issued, directory: Path, *options: str) -> tuple[int, str]:
    """What `openssl verify` ends with, and why it refused."""
    leaf, chain, roots = directory / "leaf.pem", directory / "chain.pem", directory / "roots.pem"
    leaf.write_bytes(issued.svid.leaf.public_bytes(Encoding.PEM))
    chain.write_bytes(issued.svid.chain_pem)
    roots.write_bytes(issued.bundle)
    files = ["-CAfile", str(roots), "-untrusted", str(chain)]
    command = ["openssl", "verify", "-x509_strict", "-check_ss_sig", *files, *options, str(leaf)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr
