"""Who asks for the lists, as the API's gate found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from weft.controlplane.api.authentication import Caller, Operator, Peer
from weft.errors import Denied, MeshError
from weft.model.spiffe import SpiffeId


@dataclass(frozen=True, slots=True)
class Asker:
    """Somebody who may ask."""

    name: str
    """As the audit calls it."""
    id: SpiffeId | None
    """None: an operator with a token, who sees everything."""
    admitted: Callable[[], bool]
    """Whether it is good yet, while a long answer goes on."""


def asker(scope: Mapping[str, Any]) -> Asker:
    """Who makes the request of an ASGI `scope` that has passed the Gate. Raises Denied if that is nobody."""
    caller: Caller = scope["state"]["caller"]
    authentication = scope["app"].state.context.access.authentication

    def admitted() -> bool:
        try:
            return bool(authentication.caller(scope) == caller)
        except MeshError:
            return False

    match caller:
        case Peer(spiffe_id):
            return Asker(caller.who, spiffe_id, admitted)
        case Operator():
            return Asker(caller.who, None, admitted)
    raise Denied("nobody asks")
