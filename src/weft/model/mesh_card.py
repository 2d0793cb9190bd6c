"""The card of an A2A agent as others see it: its URLs lead into the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from weft.model.agent_card import HTTP_JSON, JSON_RPC, Interface
from weft.model.names import MESH_DOMAIN
from weft.model.offer import JsonObject

_LEFT_OUT: Final = frozenset(
    {"signatures", "supportsAuthenticatedExtendedCard", "url", "preferredTransport", "additionalInterfaces"}
)


def mesh_card(card: JsonObject, base: str) -> dict[str, Any]:
    """`card` with URLs below `base`, so that whoever follows them stays in the mesh.

    Of its own URLs only the paths are kept. Without its signatures, which would be wrong now, and without the
    extended card, in which the agent would show its own URLs after all.
    """
    result = {key: value for key, value in card.items() if key not in _LEFT_OUT}
    if card.get("supportedInterfaces") is not None:
        result["supportedInterfaces"] = _supported(card, base)
    result |= _as_in_0_3(card, base)
    if isinstance(card.get("capabilities"), Mapping):
        result["capabilities"] = {
            key: value for key, value in card["capabilities"].items() if key != "extendedAgentCard"
        }
    return result


def mesh_base(agent_type: str) -> str:
    """Where agents reach a type."""
    return f"http://{agent_type}.{MESH_DOMAIN}"


def _supported(card: JsonObject, base: str) -> list[dict[str, Any]]:
    result = []
    for each in card["supportedInterfaces"]:
        way = Interface(str(each.get("url", "")), str(each.get("protocolBinding", "")), each.get("tenant"))
        if way.path is not None:
            result.append({**each, "url": _below(base, way)})
    return result


def _as_in_0_3(card: JsonObject, base: str) -> dict[str, Any]:
    """The fields in which A2A 0.3 has the interfaces. What was the preferred one may be of no use here."""
    result: dict[str, Any] = {}
    additional = [
        {**each, "url": _below(base, way)}
        for each in card.get("additionalInterfaces") or ()
        if (way := Interface(str(each.get("url", "")), str(each.get("transport", "")))).path is not None
    ]
    if additional:
        result["additionalInterfaces"] = additional
    preferred = Interface(str(card.get("url", "")), str(card.get("preferredTransport", JSON_RPC)))
    if card.get("url") and preferred.path is not None:
        return {**result, "url": _below(base, preferred), "preferredTransport": preferred.binding}
    if additional:
        first = additional[0]
        return {**result, "url": first["url"], "preferredTransport": str(first.get("transport", JSON_RPC))}
    return result


def _below(base: str, way: Interface) -> str:
    """Its URL. Where JSON-RPC is taken at the root that is written out: to a gateway `/x` is not `/x/`."""
    if way.path != "/":
        return f"{base}{way.path}"
    return base if way.binding == HTTP_JSON else f"{base}/"
