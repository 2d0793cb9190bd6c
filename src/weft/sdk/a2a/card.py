"""An agent's A2A card, made from what it says of itself and its handlers. Pure, and without a2a-sdk."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from weft.model.offer import DESCRIPTION_VARIABLE, MCP_EXTENSION, VERSION_VARIABLE
from weft.sdk.a2a.selection import text_parameters
from weft.sdk.a2a.wire import PATH, Json
from weft.sdk.handler import Handler
from weft.sdk.settings import AgentSettings

VERSIONS = ("1.0", "0.3")
BINDINGS = ("JSONRPC", "HTTP+JSON")

TEXT = "text/plain"
DATA = "application/json"

_LEGACY_VERSION = "0.3.0"
_NO_VERSION = "0"
_MAX_DESCRIPTION = 4096


@dataclass(frozen=True, slots=True)
class CardSource:
    """What a card is made of."""

    settings: AgentSettings
    handlers: Mapping[str, Handler]
    mcp_path: str | None = None
    """Where the agent serves MCP, if it does."""


def card(source: CardSource, base: str) -> Json:
    """The card as it is read at `base`, as in `http://127.0.0.1:8080`: its URLs begin so."""
    settings = source.settings
    skills = [_skill(each, settings) for each in source.handlers.values()]
    url = base + PATH
    interfaces = [
        {"url": url, "protocolBinding": binding, "protocolVersion": version}
        for version in VERSIONS
        for binding in BINDINGS
    ]
    return {
        "name": settings.type,
        "description": _description(source),
        "version": settings.version or os.environ.get(VERSION_VARIABLE) or _NO_VERSION,
        "supportedInterfaces": interfaces,
        "capabilities": {
            "streaming": True,
            "pushNotifications": True,
            "extensions": list(_extensions(source)),
        },
        "defaultInputModes": [TEXT, DATA],
        "defaultOutputModes": [TEXT, DATA],
        "skills": skills,
        # What clients of 0.3 look at.
        "url": url,
        "preferredTransport": BINDINGS[0],
        "additionalInterfaces": [{"url": url, "transport": each} for each in BINDINGS],
        "protocolVersion": _LEGACY_VERSION,
    }


def _description(source: CardSource) -> str:
    declared = os.environ.get(DESCRIPTION_VARIABLE, "").strip()
    if declared:
        return declared[:_MAX_DESCRIPTION]
    described = [inspect.getdoc(each.function) for each in source.handlers.values()]
    if len(described) == 1 and described[0]:
        return _first_paragraph(described[0])
    return f"Agent {source.settings.type}: {', '.join(sorted(source.handlers))}"[:_MAX_DESCRIPTION]


def _extensions(source: CardSource) -> Iterator[Json]:
    if source.mcp_path is not None:
        yield {
            "uri": MCP_EXTENSION,
            "description": "The skills are tools of an MCP server, too.",
            "required": False,
            "params": {"path": source.mcp_path},
        }


def _skill(handler: Handler, settings: AgentSettings) -> Json:
    return {
        "id": handler.kind,
        "name": handler.kind,
        "description": (inspect.getdoc(handler.function) or handler.kind)[:_MAX_DESCRIPTION],
        "tags": sorted(settings.capabilities) or [settings.type],
        "inputModes": [TEXT, DATA] if text_parameters(handler) else [DATA],
        "outputModes": _output_modes(handler),
    }


def _output_modes(handler: Handler) -> list[str]:
    """What comes back, as far as the annotation tells."""
    returned: Any = get_type_hints(handler.function).get("return", Any)
    if handler.streams:
        arguments = getattr(returned, "__args__", ())
        returned = arguments[0] if arguments else Any
    if returned is Any:
        return [TEXT, DATA]
    return [TEXT] if returned is str else [DATA]


def _first_paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())[:_MAX_DESCRIPTION]
