"""Cards of A2A agents, as A2A 1.0 (section 4.4) and 0.3 have them: what is taken of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from weft.errors import InvalidRequest
from weft.model.foreign_json import foreign_object
from weft.model.names import check_name
from weft.model.offer import MAX_CARD_BYTES, MCP_EXTENSION, JsonObject
from weft.model.request_path import is_ambiguous

CARD_PATH: Final = "/.well-known/agent-card.json"
"""Where an agent has its card."""

FORMER_CARD_PATH: Final = "/.well-known/agent.json"
"""Where agents had it before A2A 0.3; some clients look there yet."""

MESH_CARD_PATH: Final = "/v1/mesh-card"
"""Where the control plane has the cards for those who ask an agent for its card."""

CARD_OF_HEADER: Final = "x-weft-card-of"
"""On such a request: whom it was sent to, as `type/<type>`, `capability/<name>` or `instance/<type>`. Which
instance, `x-weft-destination` says."""

CARD_BASE_HEADER: Final = "x-weft-card-base"
"""Likewise, from a gateway: scheme and authority at which callers from outside reach it."""

MAX_SKILLS: Final = 256
"""Of one agent."""

MAX_INTERFACES: Final = 32
"""Of one agent."""

JSON_RPC: Final = "JSONRPC"
HTTP_JSON: Final = "HTTP+JSON"
"""Bindings, as cards name them."""

_MAX_PATH: Final = 1024
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_SEPARATORS: Final = re.compile(r"[_. ]+")
_PATH: Final = re.compile(r"/[!-~]*")
_TENANT: Final = re.compile(r"(?!\.+$)[A-Za-z0-9._~!$&'()*+,=:@-]{1,256}")
_NOT_HERE: Final = frozenset({"GRPC"})
"""Bindings that a sidecar does not carry to an agent that speaks HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One way to speak to an agent."""

    url: str
    """As its card says, whatever that is worth."""
    binding: str
    """`JSONRPC`, `HTTP+JSON`, or another."""
    tenant: object = ""
    """Which clients put into the paths of HTTP+JSON, before all else."""

    @property
    def path(self) -> str | None:
        """The path of its URL; None if the mesh carries no calls there."""
        try:
            parts = urlsplit(self.url)
        except ValueError:
            return None
        path = parts.path or "/"
        fits = _PATH.fullmatch(path) and len(path) <= _MAX_PATH and not is_ambiguous(path)
        reachable = self.url and parts.scheme in {"http", "https", ""} and _is_tenant(self.tenant)
        return path if fits and reachable and self.binding.upper() not in _NOT_HERE else None


def read_card(data: bytes) -> dict[str, Any]:
    """The card in `data`. Raises ValueError, saying what is wrong, where it is none that can be taken."""
    card = foreign_object(data, limit=MAX_CARD_BYTES)
    check_card(card)
    return card


def check_card(card: JsonObject) -> None:
    """Raise ValueError unless what others read of `card` is of the types that A2A says."""
    if not _text(card, "name", "the card"):
        raise ValueError("the card has no name")
    for name in ("description", "version"):
        _text(card, name, "the card")
    for number, skill in enumerate(_objects(card, "skills", MAX_SKILLS)):
        what = f"skills[{number}]"
        if not _text(skill, "id", what):
            raise ValueError(f"{what} has no id")
        _text(skill, "name", what)
        _text(skill, "description", what)
        _texts(skill, "tags", what)
        _texts(skill, "examples", what)
    for name in ("supportedInterfaces", "additionalInterfaces"):
        for number, interface in enumerate(_objects(card, name, MAX_INTERFACES)):
            _text(interface, "url", f"{name}[{number}]")
    _text(card, "url", "the card")
    if not isinstance(card.get("capabilities") or {}, Mapping):
        raise ValueError("the card's capabilities are not an object")  # noqa: TRY004 -- as all that is wrong with it


def interfaces(card: JsonObject) -> Iterator[Interface]:
    """The ways to speak to the agent of `card`, those of A2A 1.0 first."""
    for each in card.get("supportedInterfaces") or ():
        yield Interface(str(each.get("url", "")), str(each.get("protocolBinding", "")), each.get("tenant"))
    if card.get("url"):
        yield Interface(str(card["url"]), str(card.get("preferredTransport", "JSONRPC")))
    for each in card.get("additionalInterfaces") or ():
        yield Interface(str(each.get("url", "")), str(each.get("transport", "")))


def skills(card: JsonObject) -> tuple[JsonObject, ...]:
    """What the agent of `card` can do."""
    return tuple(card.get("skills") or ())


def skill_capabilities(card: JsonObject) -> tuple[list[str], list[str]]:
    """The capabilities that the skills of `card` are, in order, and notes about those that can't be one.

    A capability is a DNS label: letters become small, `_`, `.` and spaces hyphens.
    """
    names: dict[str, None] = {}
    notes = []
    for skill in skills(card):
        name = _SEPARATORS.sub("-", str(skill["id"]).lower())
        try:
            names[check_name(name, "capability")] = None
        except InvalidRequest:
            notes.append(f"skill {skill['id'][:100]!r} is no capability: its id cannot be made a host name")
    return list(names), notes


def card_notes(card: JsonObject) -> list[str]:
    """What in `card` is not so, or of no use in a mesh, for people."""
    notes = []
    for each in interfaces(card):
        shown = each.url[:200]
        try:
            host = urlsplit(each.url).hostname
        except ValueError:
            host = None
        if each.path is None:
            notes.append(
                f"its card's interface {shown!r} ({each.binding[:40]}) is left out: the mesh has no way there"
            )
        elif host not in {*_LOOPBACK, None}:
            notes.append(f"its card says it is at {shown!r}: only the path of that is used")
    return notes


def mcp_path(card: JsonObject) -> str | None:
    """Where the agent of `card` serves MCP, if it says so."""
    extensions = (card.get("capabilities") or {}).get("extensions")
    for each in extensions if isinstance(extensions, list) else ():
        if isinstance(each, Mapping) and each.get("uri") == MCP_EXTENSION:
            params = each.get("params")
            path = params.get("path", "/mcp") if isinstance(params, Mapping) else "/mcp"
            if isinstance(path, str) and _PATH.fullmatch(path) and len(path) <= _MAX_PATH:
                return path
    return None


def _is_tenant(tenant: object) -> bool:
    """Whether a path that begins with `tenant` stays where it is: one such as `../x` leads elsewhere."""
    return not tenant or (isinstance(tenant, str) and _TENANT.fullmatch(tenant) is not None)


def _text(of: JsonObject, name: str, what: str) -> str:
    value = of.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} of {what} is not text")
    return value or ""


def _texts(of: JsonObject, name: str, what: str) -> None:
    value = of.get(name)
    if value is not None and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise ValueError(f"{name} of {what} is not a list of texts")


def _objects(card: JsonObject, name: str, limit: int) -> list[JsonObject]:
    value = card.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise ValueError(f"the card's {name} are not a list of objects")
    if len(value) > limit:
        raise ValueError(f"the card has {len(value)} {name}, {limit} at most")
    return value
