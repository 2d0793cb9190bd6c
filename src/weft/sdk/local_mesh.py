"""The mesh that `weft up` runs on this machine, if it does."""

from __future__ import annotations

from collections.abc import Mapping

from weft.aio.lockfile import is_locked
from weft.errors import InvalidRequest
from weft.model.local_state import (
    LOCK_FILE,
    MAX_STATE_BYTES,
    STATE_FILE,
    MeshState,
    mesh_directory,
    mesh_name,
    parse_state,
)


def running_mesh(environ: Mapping[str, str], name: str | None = None) -> MeshState | None:
    """The mesh `name` (by default WEFT_MESH, else `default`) of this user, or None if it does not run.

    Raises InvalidRequest if `name` is no name.
    """
    directory = mesh_directory(environ, name or mesh_name(environ))
    if not is_locked(directory / LOCK_FILE):
        return None
    try:
        with (directory / STATE_FILE).open(encoding="utf-8") as file:
            return parse_state(file.read(MAX_STATE_BYTES))
    except (OSError, UnicodeDecodeError, InvalidRequest):
        return None  # it is just starting, or stopping
