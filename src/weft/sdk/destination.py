"""Whom a call is for, as a host of the mesh."""

from __future__ import annotations

from weft.errors import InvalidRequest
from weft.model.agent import Instance
from weft.model.names import MESH_DOMAIN, check_name

CONTROL_HOST = f"control.{MESH_DOMAIN}"
"""The control plane's API."""

_MAX_LABELS = 2


def host_of(to: str | Instance) -> str:
    """Return the host at which the mesh reaches `to`.

    `to` is a type (`summarizer`), one instance (`summarizer-1.summarizer`, or an Instance from `discover`),
    or a capability (`summarize.cap`). Raises InvalidRequest if it is none of these.
    """
    name = f"{to.id}.{to.type}" if isinstance(to, Instance) else to
    labels = name.split(".")
    if len(labels) > _MAX_LABELS:
        raise InvalidRequest(
            f"{name!r} names no agent: use a type ('summarizer'), an instance ('summarizer-1.summarizer') or "
            "a capability ('summarize.cap')"
        )
    for label in labels:
        check_name(label, "destination")
    return f"{name}.{MESH_DOMAIN}"
