"""What a running agent says of itself: its A2A card, and what it has for clients of MCP.

Its sidecar reads that and keeps it in the store, where the control plane joins it with who is running.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

OFFERS_BUCKET: Final = "offers"
"""Keys are those of instances, `<type>.<id>`."""

DESCRIPTION_VARIABLE: Final = "WEFT_AGENT_DESCRIPTION"
VERSION_VARIABLE: Final = "WEFT_AGENT_VERSION"
"""Environment variables by which an agent learns what its Agent resource says of it; `weft up` sets them."""

MAX_CARD_BYTES: Final = 64 * 1024
"""Size of a card as an agent serves it; a larger one is not taken."""

MAX_OFFER_BYTES: Final = 900 * 1024
"""Size of one offer as it is stored: what goes beyond it is left out of the lists, with a note."""

MCP_EXTENSION: Final = "https://weft.dev/mcp/v1"
"""URI of the extension by which an A2A card says that its agent serves MCP too; `params.path` says where."""

JsonObject = Mapping[str, Any]
"""As a server wrote it."""


class McpGeneration(StrEnum):
    """Which of the two kinds of MCP a server speaks."""

    SESSIONS = "2025-11-25"
    """With `initialize`, and sessions. Also what earlier versions are taken for."""
    STATELESS = "2026-07-28"
    """Every request stands for itself. A server that speaks both is taken for this."""


@dataclass(frozen=True, slots=True)
class McpOffer:
    """What an MCP server lists, in its own order."""

    generation: McpGeneration
    path: str = "/mcp"
    """Where it takes requests."""
    server: JsonObject = field(default_factory=dict)
    """`name`, `version`, `title`, `instructions`, as far as it says them."""
    tools: tuple[JsonObject, ...] = ()
    resources: tuple[JsonObject, ...] = ()
    templates: tuple[JsonObject, ...] = ()
    """Of resources."""
    prompts: tuple[JsonObject, ...] = ()
    completions: bool = False
    """Whether it completes arguments (`completion/complete`)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one instance offers."""

    card: JsonObject | None = None
    """Its A2A card as it serves it; nothing in it is trusted."""
    mcp: McpOffer | None = None
    notes: tuple[str, ...] = ()
    """What could not be read or was left out, and why; for people."""
