"""AccessPolicies in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from weft.dashboard.pages.spans import plain

MAX_SHOWN = 20_000
"""Characters of a policy that are shown."""


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """An AccessPolicy, as people read it."""

    name: str
    sentence: str
    tone: str
    """"ok" for one that allows, "bad" for one that denies, "warn" for one that is only tried."""
    rules: tuple[str, ...]
    """What of it, where that is narrowed down."""
    spec: str
    """All of it."""


def policies_of(answer: Any) -> list[PolicyRow]:
    """The policies in what the API answers, by name."""
    items = answer.get("items") if isinstance(answer, dict) else None
    found = [_row(each) for each in items or [] if isinstance(each, dict)]
    return sorted(found, key=lambda each: each.name)


def _row(item: dict[str, Any]) -> PolicyRow:
    metadata, spec = _dict(item.get("metadata")), _dict(item.get("spec"))
    return PolicyRow(
        name=str(metadata.get("name") or ""),
        sentence=_sentence(spec),
        tone=_tone(spec),
        rules=tuple(_rule(_dict(each)) for each in _list(spec.get("rules"))),
        spec=plain(spec)[:MAX_SHOWN],
    )


def _sentence(spec: dict[str, Any]) -> str:
    if default := spec.get("default"):
        return f"What no other policy speaks of is {'denied' if default == 'deny' else 'allowed'}."
    verb = "denies" if spec.get("effect") == "deny" else "allows"
    if spec.get("mode") == "dryRun":
        verb = f"only reports what it would change: it {verb}"
    callers = _any(map(_principal, _list(spec.get("from")))) or "anyone"
    callees = _any(map(_destination, _list(spec.get("to")))) or "everything"
    return f"It {verb} {callers} to reach {callees}{':' if spec.get('rules') else '.'}"


def _tone(spec: dict[str, Any]) -> str:
    if spec.get("mode") == "dryRun":
        return "warn"
    return "bad" if "deny" in (spec.get("effect"), spec.get("default")) else "ok"


def _principal(value: Any) -> str:
    told = _dict(value)
    parts = [str(told[name]) for name in ("type", "instance") if told.get(name)]
    if told.get("operator"):
        parts.append(f"operator/{told['operator']}")
    parts += [f"with {name}={text}" for name, text in _dict(told.get("labels")).items()]
    if told.get("trustDomain"):
        parts.append(f"of {told['trustDomain']}")
    return " ".join(parts) or "anyone"


def _destination(value: Any) -> str:
    told = _dict(value)
    parts = [str(told["type"])] if told.get("type") else []
    if told.get("version"):
        parts.append(f"version {told['version']}")
    if told.get("capability"):
        parts.append(f"who offers {told['capability']}")
    parts += [f"{kind}/{told[kind]}" for kind in ("topic", "queue", "pool") if told.get(kind)]
    return " ".join(parts) or "everything"


def _rule(rule: dict[str, Any]) -> str:
    names = (("actions", "to"), ("methods", ""), ("paths", ""))
    parts = [f"{word} {', '.join(map(str, _list(rule.get(name))))}" for name, word in names if rule.get(name)]
    for protocol in ("mcp", "a2a"):
        for name, texts in _dict(rule.get(protocol)).items():
            parts.append(f"{protocol.upper()} {name} {', '.join(map(str, _list(texts)))}")
    return " ".join(each.strip() for each in parts) or "all of it"


def _any(words: Iterable[str]) -> str:
    return " or ".join(words)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
