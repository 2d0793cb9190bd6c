"""What a mesh that `weft up` runs writes down about itself, so that other programs find it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from weft.errors import InvalidRequest
from weft.model.names import check_name

HOME_VARIABLE = "WEFT_HOME"
"""Environment variable: the directory that holds the meshes of this user; `~/.weft` by default."""

MESH_VARIABLE = "WEFT_MESH"
"""Environment variable: which of this user's meshes is meant; `default` by default."""

DEFAULT_MESH = "default"
LOOPBACK = "127.0.0.1"

STATE_FILE = "state.json"
LOCK_FILE = "lock"
"""Locked while the mesh runs: the kernel lets go of it whatever way its process ends."""

MAX_STATE_BYTES = 1024 * 1024

_Port = Annotated[int, Field(ge=1, le=65535)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class MeshPorts(_Record):
    """The ports of a mesh on one machine, all on loopback."""

    api: _Port
    xds: _Port
    nats: _Port
    proxy: _Port
    """The door: a sidecar that only calls, through which scripts reach the mesh."""
    dashboard: _Port
    """The dashboard, for a browser on this machine."""
    metrics: _Port
    """The control plane's metrics, for a Prometheus on this machine."""


class ChildState(_Record):
    """One process of the mesh."""

    name: str
    pid: int | None
    phase: str
    restarts: int = 0
    detail: str = ""


class GatewayState(_Record):
    """A gateway that is run here."""

    name: str
    url: str
    """Where callers from outside reach it."""


class MeshState(_Record):
    """A mesh on this machine."""

    name: str
    pid: Annotated[int, Field(gt=1)]
    """Process id of `weft up`: SIGTERM stops the mesh."""
    started_at: float
    """Seconds since 1970."""
    ports: MeshPorts
    children: tuple[ChildState, ...] = ()
    gateways: tuple[GatewayState, ...] = ()
    """By name."""
    models: str = ""
    """Which models there are, where nobody declares any; else empty."""

    @property
    def api_url(self) -> str:
        """Where the control plane's API is."""
        return f"https://{LOOPBACK}:{self.ports.api}"

    @property
    def proxy_url(self) -> str:
        """Where the door is: an HTTP proxy into the mesh."""
        return f"http://{LOOPBACK}:{self.ports.proxy}"

    @property
    def dashboard_url(self) -> str:
        """Where a browser on this machine finds the dashboard."""
        return f"http://{LOOPBACK}:{self.ports.dashboard}/dashboard/"

    @property
    def metrics_url(self) -> str:
        """Where the control plane's own metrics are."""
        return f"http://{LOOPBACK}:{self.ports.metrics}/metrics"

    @property
    def nats_url(self) -> str:
        """Where NATS is."""
        return f"tls://{LOOPBACK}:{self.ports.nats}"

    @property
    def xds_address(self) -> str:
        """Where sidecars get their configuration: `host:port`."""
        return f"{LOOPBACK}:{self.ports.xds}"


def encode_state(state: MeshState) -> str:
    """`state` as JSON."""
    return state.model_dump_json(by_alias=True, indent=2) + "\n"


def parse_state(text: str) -> MeshState:
    """The state that `text` holds. Raises InvalidRequest if it holds none."""
    try:
        return MeshState.model_validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(f"this is not the state of a mesh: {error}") from error


def mesh_name(environ: Mapping[str, str]) -> str:
    """Which mesh is meant where nobody says. Raises InvalidRequest if WEFT_MESH is no name."""
    return check_name(environ.get(MESH_VARIABLE) or DEFAULT_MESH, "mesh")


def mesh_directory(environ: Mapping[str, str], name: str) -> Path:
    """The directory of the mesh `name`. Raises InvalidRequest if that is no name."""
    home = environ.get(HOME_VARIABLE)
    base = Path(os.path.abspath(home)) if home else Path.home() / ".weft"  # noqa: PTH100 -- resolves no links
    return base / "meshes" / check_name(name, "mesh")
