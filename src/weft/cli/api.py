"""Finding the control plane that a command is meant for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from weft.cli.options import ControlPlane
from weft.errors import InvalidRequest, Unavailable
from weft.local.control import ControlApi
from weft.model.local_state import MeshState, mesh_name
from weft.sdk.local_mesh import running_mesh

API_VARIABLE = "WEFT_API"
"""Environment variable: address of a control plane's API, as in `http://127.0.0.1:7400`."""


def control_api(which: ControlPlane) -> ControlApi:
    """The API that is meant.

    Raises Unavailable if none is named and no mesh is running, InvalidRequest if what is named is no address.
    """
    return ControlApi(_api_url(which, os.environ))


def the_mesh(name: str | None) -> MeshState:
    """The mesh `name` on this machine (default: WEFT_MESH, or `default`). Raises Unavailable if none runs."""
    mesh = running_mesh(os.environ, name)
    if mesh is not None:
        return mesh
    called = name or mesh_name(os.environ)
    if called == "default":
        raise Unavailable("no mesh is running: start one with `weft up`")
    raise Unavailable(f"mesh {called!r} is not running: start it with `weft up --mesh {called}`")


def _api_url(which: ControlPlane, environ: Mapping[str, str]) -> str:
    if which.api is not None:
        return _check_url(which.api, "--api")
    if which.mesh is None and (given := environ.get(API_VARIABLE)):
        return _check_url(given, API_VARIABLE)
    return the_mesh(which.mesh).api_url


def _check_url(url: str, source: str) -> str:
    try:
        parts = urlsplit(url)
        valid = (
            parts.scheme in {"http", "https"}
            and parts.hostname
            and parts.path in {"", "/"}
            and parts.port != 0
        )
    except ValueError:
        valid = False
    if not valid:
        raise InvalidRequest(f"{source} must look like http://127.0.0.1:7400, not {url!r}")
    return url.rstrip("/")
