"""Attacks on a whole mesh as `weft up` makes it: each is refused, and the audit tells of it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.e2e.secured import SecuredMesh, knock, secured_mesh, stranger
from tests.pki import Pki

pytestmark = pytest.mark.asyncio(loop_scope="module")

EDITOR = "spiffe://weft.local/agent/editor/editor-1"
VAULT = "spiffe://weft.local/agent/vault/vault-1"
GET = b"GET /health HTTP/1.1\r\nhost: vault.mesh\r\n\r\n"


def witness(agent_type: str) -> str:
    return f"""
apiVersion: weft.dev/v1alpha1
kind: Agent
metadata: {{name: {agent_type}}}
spec:
  health: {{interval: 500ms}}
  drainTimeout: 2s
  run: {{command: [{sys.executable}, witness.py, {agent_type}]}}
"""


MANIFEST = "---".join(witness(each) for each in ("vault", "editor", "intern"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[SecuredMesh]:
    async with secured_mesh(MANIFEST) as mesh:
        yield mesh


async def test_nobody_reaches_an_agent_without_one_valid_identity(mesh: SecuredMesh, tmp_path: Path) -> None:
    inside = await mesh.insider()
    address = await mesh.inbound("vault")
    shown = {
        "self-signed": (inside.svid(EDITOR, self_signed=True), "verify"),
        "expired": (inside.svid(EDITOR, lifetime=-60, not_before=-3600), "expired"),
        "not yet valid": (inside.svid(EDITOR, not_before=600), "not_yet_valid"),
        "two URI SANs": (inside.svid(EDITOR, extra_uris=[VAULT]), "not-one-spiffe-id"),
        "unknown authority": (Pki().svid(EDITOR), "verify"),
        "other trust domain": (
            Pki("other.example").svid("spiffe://other.example/agent/editor/e"),
            "no_trust",
        ),
    }
    for why, (credentials, reason) in shown.items():
        file = tmp_path / "shown.pem"
        file.write_bytes(b"".join(credentials))
        with mesh.attack():
            assert await knock(address, stranger(file), GET) == b"", why
            denial = await mesh.audited(outcome="denied", action="connect", reason=reason)
        assert denial["who"].startswith("unauthenticated 127.0.0.1"), why
        assert denial["observer"] == "agent/vault/vault-1", why
    with mesh.attack():
        assert await knock(address, stranger(), GET) == b""
        await mesh.audited(outcome="denied", action="connect", reason="PEER_DID_NOT_RETURN_A_CERTIFICATE")
        assert await knock(address, None, GET) == b""
        await mesh.audited(outcome="denied", action="connect", reason="HTTP_REQUEST")
    good = tmp_path / "good.pem"
    good.write_bytes(b"".join(inside.svid(EDITOR)))
    assert (await knock(address, stranger(good), GET)).startswith(b"HTTP/1.1 200")
