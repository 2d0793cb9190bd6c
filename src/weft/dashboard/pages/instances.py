"""What is known of instances, as rows of a table. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from weft.dashboard.page import link_to

_TONES = {"healthy": "ok", "starting": "warn", "draining": "warn", "unhealthy": "bad"}

MAX_REASON = 300
"""Characters of why an instance is as it is, or of what its Envoy refused."""


def base_rows(news: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each instance that is there, and for each that left a while ago."""
    gone = [_left(each) for each in news["left"]]
    return [
        *gone,
        *(_row(each, each["status"], _TONES.get(each["status"], "muted")) for each in news["items"]),
    ]


def with_sync(
    rows: Iterable[Mapping[str, Any]], sidecars: Mapping[str, Any], expiries: Mapping[str, float]
) -> list[dict[str, Any]]:
    """`rows` with the state of their sidecars' configuration, and the ends of their certificates."""
    return [
        {**each, **_sync(sidecars.get(each["key"])), "expires": expiries.get(each["key"])} for each in rows
    ]


def sidecars_by_key(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What the API lists of sidecars, by `<type>.<instance>`."""
    return {each["key"]: each for each in answer["items"]}


def expiries(answer: Mapping[str, Any]) -> dict[str, float]:
    """When certificates end (seconds since 1970), by `<type>.<instance>`: of each identity the newest."""
    ends: dict[str, float] = {}
    for each in answer["items"]:
        agent_type, _, instance = each["spiffeId"].rpartition("/")
        key = f"{agent_type.rpartition('/')[2]}.{instance}"
        ends[key] = max(ends.get(key, 0.0), each["expiresAt"])
    return ends


def counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many instances are healthy, not healthy, on their way in or out, and gone."""
    found = {"healthy": 0, "unhealthy": 0, "starting": 0, "draining": 0, "gone": 0}
    for each in rows:
        if each["status"] in found:
            found[each["status"]] += 1
    return found


def rejection(sidecar: Mapping[str, Any] | None) -> str:
    """What an Envoy refused, and why; empty if nothing."""
    rejected = (sidecar or {}).get("rejected") or ()
    return "; ".join(f"{_resource(each)}: {each['reason']}" for each in rejected)[:MAX_REASON]


def _resource(rejected: Mapping[str, Any]) -> str:
    kind = rejected["typeUrl"].rpartition(".")[2]
    return f"{kind} {', '.join(rejected['resources'][:3])}".strip()


def _left(item: Mapping[str, Any]) -> dict[str, Any]:
    wanted = item["status"] == "draining"
    row = _row(item, "left" if wanted else "gone", "muted" if wanted else "bad")
    return {**row, "inFlight": None, "reason": "" if wanted else "it ended, or its lease ran out"}


def _row(item: Mapping[str, Any], status: str, tone: str) -> dict[str, Any]:
    return {
        "key": f"{item['type']}.{item['id']}",
        "id": item["id"],
        "type": item["type"],
        "status": status,
        "tone": tone,
        "reason": item["reason"][:MAX_REASON],
        "version": item["version"],
        "capabilities": ", ".join(item["capabilities"]),
        "zone": item["locality"]["zone"],
        "inFlight": item["inFlight"],
        "startedAt": item["startedAt"],
        "to": link_to("agents", item["type"], item["id"]),
    }


def _sync(sidecar: Mapping[str, Any] | None) -> dict[str, str]:
    if sidecar is None:
        return {"sync": "not connected", "syncTone": "muted"}
    if sidecar["inSync"]:
        return {"sync": "in sync", "syncTone": "ok"}
    refused = rejection(sidecar)
    return {
        "sync": f"refused: {refused}" if refused else "being sent",
        "syncTone": "bad" if refused else "warn",
    }
