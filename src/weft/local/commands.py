"""The command lines of the mesh's processes. Pure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from weft.local.server_trust import BUNDLE_FILE
from weft.model.local_state import LOOPBACK, MeshPorts
from weft.model.membership import DOOR_DIRECTORY

LOCAL_SAMPLING = 100.0
"""Percent of calls that are traced: a mesh on one machine has few, and somebody who wants to see each."""

DOOR = "door"
"""Name of the sidecar that only calls, through which scripts reach the mesh."""


def control_command(ports: MeshPorts) -> list[str]:
    """The control plane."""
    return [
        *_module("weft.controlplane"),
        *("--nats", _nats(ports)),
        *("--host", LOOPBACK),
        *("--api-port", str(ports.api)),
        *("--xds-port", str(ports.xds)),
        *("--dashboard-port", str(ports.dashboard)),
        *("--metrics-port", str(ports.metrics)),
    ]


def door_command(ports: MeshPorts, directory: Path) -> list[str]:
    """The sidecar without an agent."""
    arguments = ["--id", DOOR, "--outbound-port", str(ports.proxy)]
    identity = ["--identity-dir", str(directory / DOOR_DIRECTORY)]
    return sidecar_command(ports, directory, [*arguments, *identity], ())


def sidecar_command(
    ports: MeshPorts, directory: Path, arguments: Sequence[str], program: Sequence[str]
) -> list[str]:
    """A sidecar of the mesh in `directory`, beside `program`, if there is one.

    `arguments` say what agent that is.
    """
    mesh = [
        *("--nats", _nats(ports)),
        *("--xds", f"{LOOPBACK}:{ports.xds}"),
        *("--api", f"https://{LOOPBACK}:{ports.api}"),
        *("--trust-bundle", str(directory / BUNDLE_FILE)),
        *("--trace-sampling", f"{LOCAL_SAMPLING:g}"),
    ]
    return [*_module("weft.sidecar"), *mesh, *arguments, *(["--", *program] if program else [])]


def _nats(ports: MeshPorts) -> str:
    return f"tls://{LOOPBACK}:{ports.nats}"


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]
