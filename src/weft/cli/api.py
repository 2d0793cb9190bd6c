"""Finding the control plane that a command is meant for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from weft.cli.options import ControlPlane
from weft.errors import InvalidRequest, Unavailable
from weft.local.control import ControlApi
from weft.local.server_trust import BUNDLE_FILE
from weft.local.token_file import TOKEN_FILE, check_token, read_token
from weft.model.local_state import MeshState, mesh_directory, mesh_name
from weft.model.operator import TOKEN_VARIABLE
from weft.sdk.local_mesh import running_mesh

API_VARIABLE = "WEFT_API"
"""Environment variable: address of a control plane's API, as in `https://127.0.0.1:7400`."""

TOKEN_FILE_VARIABLE = "WEFT_TOKEN_FILE"  # noqa: S105 -- its name
"""Environment variable: a file with that token, which comes before the token itself."""

CA_FILE_VARIABLE = "WEFT_CA_FILE"
"""Environment variable: roots (PEM) that vouch for a control plane that is not of the mesh here."""


def control_api(which: ControlPlane) -> ControlApi:
    """The API that is meant, asked by whoever holds the token that is meant.

    Raises Unavailable if none is named and no mesh is running, InvalidRequest if what is named is no address,
    or there is something wrong with the token's file, NotFound if that does not exist.
    """
    url = _named_url(which, os.environ)
    if url is None:
        state = the_mesh(which.mesh)
        return mesh_api(state, token_file=which.token_file, ca_file=which.ca_file)
    return ControlApi(
        url, token=_named_token(which, os.environ), roots=which.ca_file or _path(os.environ, CA_FILE_VARIABLE)
    )


def mesh_api(state: MeshState, *, token_file: Path | None = None, ca_file: Path | None = None) -> ControlApi:
    """The API of a mesh on this machine, with its token and its roots unless others are given.

    Raises InvalidRequest if the token's file can be read by others, NotFound if `token_file` does not exist.
    """
    directory = mesh_directory(os.environ, state.name)
    own = directory / TOKEN_FILE
    file = token_file or (own if own.exists() else None)
    token = None if file is None else read_token(file)
    return ControlApi(state.api_url, token=token, roots=ca_file or directory / BUNDLE_FILE)


def the_mesh(name: str | None) -> MeshState:
    """The mesh `name` on this machine (default: WEFT_MESH, or `default`). Raises Unavailable if none runs."""
    mesh = running_mesh(os.environ, name)
    if mesh is not None:
        return mesh
    called = name or mesh_name(os.environ)
    if called == "default":
        raise Unavailable("no mesh is running: start one with `weft up`")
    raise Unavailable(f"mesh {called!r} is not running: start it with `weft up --mesh {called}`")


def _named_url(which: ControlPlane, environ: Mapping[str, str]) -> str | None:
    """The address that somebody named; None where the mesh here is meant."""
    if which.api is not None:
        return _check_url(which.api, "--api")
    if which.mesh is None and (given := environ.get(API_VARIABLE)):
        return _check_url(given, API_VARIABLE)
    return None


def _named_token(which: ControlPlane, environ: Mapping[str, str]) -> str | None:
    file = which.token_file or _path(environ, TOKEN_FILE_VARIABLE)
    if file is not None:
        return read_token(file)
    given = environ.get(TOKEN_VARIABLE)
    return check_token(given, TOKEN_VARIABLE) if given else None


def _path(environ: Mapping[str, str], variable: str) -> Path | None:
    given = environ.get(variable)
    return Path(given) if given else None


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
        raise InvalidRequest(f"{source} must look like https://127.0.0.1:7400, not {url!r}")
    return url.rstrip("/")
