"""Egress: what agents may reach outside the mesh."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from weft.model.outside_host import OutsidePattern
from weft.model.spec import MAX_ITEMS, Spec, TypeName


class EgressMode(StrEnum):
    """What may be reached."""

    OPEN = "open"
    """Every host."""
    LIST = "list"
    """What is in `allow`, and the hosts to which a Secret adds a header for the caller."""


class AllowedHost(Spec):
    """A host outside the mesh that may be reached."""

    host: OutsidePattern
    """Its name, `*.` and a name for all below it, or an IPv4 address."""
    ports: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65535)], ...], Field(min_length=1, max_length=MAX_ITEMS)
    ] = (443,)
    """At which ports. `http://host/` is port 80."""


class EgressSpec(Spec):
    """What agents may reach outside the mesh, through their sidecars."""

    mode: EgressMode
    """Whether every host may be reached, or only those of a list."""
    allow: Annotated[tuple[AllowedHost, ...], Field(max_length=MAX_ITEMS)] = ()
    """What may be reached, in mode `list`; nothing if it is empty."""
    for_types: Annotated[tuple[TypeName, ...], Field(min_length=1, max_length=MAX_ITEMS)] | None = Field(
        default=None, alias="for"
    )
    """The agent types this is about; if omitted, it is the mesh's default, for all others."""
