"""Tools and their servers as the API tells them, with what was called of them, made into rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_SCHEMA = 64 * 1024
"""Characters of a schema that are shown."""

_FIRST = 200
"""Characters of a description in a row."""


@dataclass(frozen=True, slots=True)
class MayCall:
    """Whether agents of a type may call a tool."""

    caller: str
    allowed: bool
    policy: str
    """The AccessPolicy that decided; empty: none."""
    reason: str


def tool_rows(
    tools: Iterable[Mapping[str, Any]], traffic: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each tool, in the catalogue's order; `traffic` is what was called of late."""
    called = {(each["server"], each["tool"]): each for each in traffic}
    return [_tool_row(each, _calls_of(each, called)) for each in tools]


def traffic_of(tool: Mapping[str, Any], traffic: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """What was called of one tool of late."""
    return _calls_of(tool, {(each["server"], each["tool"]): each for each in traffic})


def uncatalogued(
    tools: Iterable[Mapping[str, Any]], traffic: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """What was called of late and is in the catalogue no more."""
    known = {(each["server"], name) for each in tools for name in _names(each)}
    return [each for each in traffic if (each["server"], each["tool"]) not in known]


def server_rows(servers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each MCP server."""
    return [
        {
            "id": each["type"],
            "server": each["type"],
            "title": each["title"],
            "tools": each["tools"],
            "prompts": each["prompts"],
            "resources": each["resources"] + each["templates"],
            "generation": each["generation"] or "not read yet",
            "notes": len(each["notes"]),
            "tone": "warn" if each["notes"] else "ok",
        }
        for each in servers
    ]


def notes_of(servers: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What was left out of each server's lists or could not be read, and why."""
    return [(each["type"], str(note)) for each in servers for note in each["notes"]]


def schema_text(tool: Mapping[str, Any]) -> str:
    """What a tool takes, as JSON Schema."""
    text = json.dumps(tool["inputSchema"], ensure_ascii=False, indent=2)
    return text if len(text) <= MAX_SCHEMA else f"{text[:MAX_SCHEMA]}…"


def can_question(caller: str, tool: Mapping[str, Any]) -> dict[str, str]:
    """What to ask `POST /v1/can` about a tool: policies name tools as their servers do."""
    return {
        "caller": caller,
        "action": "call",
        "target": str(tool["server"]),
        "path": "/mcp",
        "rpc": "tools/call",
        "tool": str(tool["original"]),
    }


def may_call(caller: str, answer: Mapping[str, Any]) -> MayCall:
    """What `POST /v1/can` answered."""
    return MayCall(caller, bool(answer["allowed"]), str(answer["policy"]), str(answer["reason"]))


def callers_row(found: MayCall, called: Sequence[str]) -> dict[str, Any]:
    """A row for a type that may call a tool, or may not; `called` are those that did of late."""
    return {
        "id": found.caller,
        "caller": found.caller,
        "allowed": "may" if found.allowed else "may not",
        "tone": "ok" if found.allowed else "bad",
        "policy": found.policy or "none",
        "reason": found.reason,
        "called": "yes" if found.caller in called else "",
    }


def _names(tool: Mapping[str, Any]) -> tuple[str, ...]:
    return (tool["name"], *tool["aliases"], tool["original"])


def _calls_of(
    tool: Mapping[str, Any], called: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    for name in _names(tool):
        if (tool["server"], name) in called:
            return called[tool["server"], name]
    return None


def _tool_row(tool: Mapping[str, Any], traffic: Mapping[str, Any] | None) -> dict[str, Any]:
    calls, errors = (traffic["calls"], traffic["errors"]) if traffic is not None else (0, 0)
    first = tool["description"].strip().partition("\n")[0]
    return {
        "id": tool["name"],
        "name": tool["name"],
        "server": tool["server"],
        "description": first if len(first) <= _FIRST else f"{first[:_FIRST]}…",
        "calls": calls,
        "errors": errors,
        "errorShare": errors / calls if calls else None,
        "p50": traffic["p50"] if traffic is not None else None,
        "p99": traffic["p99"] if traffic is not None else None,
        "callers": ", ".join(traffic["callers"]) if traffic is not None else "",
    }
