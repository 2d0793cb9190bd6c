"""NATS and a control plane that start with nothing but the Secrets of `weft kubernetes bootstrap`."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from tests.servers import nats_server

from weft.aio.children import spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.kubernetes.first_keys import first_keys
from weft.local.control import ControlApi
from weft.local.nats_security import NatsSecurity

HOST = "127.0.0.1"
LIMIT = 120.0
"""Seconds in which a control plane has started."""


def mounted(directory: Path) -> dict[str, Path]:
    """Directories with what is in the Secrets, by their names, as a kubelet mounts them."""
    found = {}
    for secret in first_keys("weft", "mesh"):
        name = secret["metadata"]["name"]
        found[name] = directory / name
        found[name].mkdir()
        for key, value in secret["data"].items():
            (found[name] / key).write_bytes(base64.b64decode(value))
    return found


async def test_nats_and_a_control_plane_start_with_them_and_the_operator_gets_in(tmp_path: Path) -> None:
    secrets = mounted(tmp_path)
    files = secrets["weft-nats"]
    security = NatsSecurity(
        files, (files / "control.public").read_text(), (files / "issuer.public").read_text()
    )
    security.trust(b"")
    bundle = tmp_path / "roots.pem"
    with reserve_port(HOST) as api, reserve_port(HOST) as xds:
        ports = api.port, xds.port
    async with AsyncExitStack() as ends:
        nats = await ends.enter_async_context(nats_server(tmp_path, security))
        guard = await ends.enter_async_context(Guard(grace=0.1))
        log = ends.enter_context((tmp_path / "control.log").open("wb"))
        settings = {
            "NATS": f'["{nats.url}"]',
            "NATS_ROOTS_FILE": files / "roots.pem",
            "NATS_CREDENTIALS_FILE": files / "control.pem",
            "NATS_SEED_FILE": files / "control.seed",
            "NATS_ISSUER_FILE": files / "issuer.seed",
            "SEALING_KEY": "env:SEALING_KEY",
            "OPERATOR_TOKEN_FILE": secrets["weft-operator-token"] / "token",
            "BUNDLE_FILE": bundle,
            "API_PORT": ports[0],
            "XDS_PORT": ports[1],
            "DASHBOARD_PORT": 0,
            "METRICS_PORT": 0,
        }
        control = await spawn(
            [sys.executable, "-m", "weft.controlplane"],
            guard=guard,
            environ={
                **os.environ,
                **{f"WEFT_CONTROL_{name}": str(value) for name, value in settings.items()},
                "SEALING_KEY": (secrets["weft-sealing-key"] / "sealing.key").read_text(),
            },
            stdout=log.fileno(),
            stderr=asyncio.subprocess.STDOUT,
        )
        ends.push_async_callback(control.stop, 60.0)
        token = (secrets["weft-operator-token"] / "token").read_text().strip()
        connection = ControlApi(f"https://{HOST}:{ports[0]}", token=token, roots=bundle)
        operator = await ends.enter_async_context(connection)

        async def ready() -> bool:
            assert control.running, (tmp_path / "control.log").read_text()
            return bundle.exists() and await operator.ready()

        async with asyncio.timeout(LIMIT):
            await until(ready)
        assert [each["name"] for each in await operator.tokens()] == ["local"]
