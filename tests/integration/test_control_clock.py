"""What is said where clocks differ so much that a certificate is not valid now."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from tests.pki import Pki

from weft.errors import Unavailable
from weft.identity.bundle import TrustBundles
from weft.local.control import ControlApi
from weft.model.node import parse_address
from weft.sidecar.identity_api import IdentityApi

CONTROL = "spiffe://weft.local/control/one"


@pytest.mark.parametrize(
    ("not_before", "lifetime", "why"), [(3600.0, 7200.0, "not yet valid"), (-7200.0, -3600.0, "has expired")]
)
async def test_a_certificate_that_is_not_valid_now_points_to_the_clocks(
    tmp_path: Path, not_before: float, lifetime: float, why: str
) -> None:
    pki = Pki()
    chain, key = pki.svid(CONTROL, not_before=not_before, lifetime=lifetime)
    (tmp_path / "server.pem").write_bytes(chain + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, ControlApi(url, token="t", roots=pki.bundle().pem) as api:
        with pytest.raises(Unavailable, match=rf"is not valid now.*{why}.*the clock of this machine"):
            await api.resources("agents")
        sidecars = IdentityApi([parse_address(url.removeprefix("https://"))])
        with pytest.raises(Unavailable, match=rf"{why}; see whether clocks agree"):
            await sidecars.bundles(TrustBundles(pki.bundle()))
