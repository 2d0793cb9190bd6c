"""The cards that others see, and which of them somebody finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from weft.controlplane.cards import card_of, destinations_with_card, ways_in
from weft.controlplane.translate.destination import of_capability, of_type
from weft.model.agent import Instance, Status
from weft.model.card_catalogue import CardQuery, listed_cards
from weft.model.mesh_card import mesh_card
from weft.model.offer import Offer

BASE = "http://echo.mesh"

NEW: dict[str, Any] = {
    "name": "Echo",
    "description": "Says it again",
    "capabilities": {"streaming": True, "extendedAgentCard": True},
    "supportedInterfaces": [
        {"url": "http://127.0.0.1:9/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "t"},
        {"url": "https://x.example/v1", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
        {"url": "x.example:50051", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
        {"url": "http://x.example/a/../b", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
    ],
    "securitySchemes": {"key": {"apiKeySecurityScheme": {"name": "x"}}},
    "signatures": [{"protected": "x", "signature": "y"}],
    "skills": [
        {
            "id": "say",
            "name": "Say it",
            "description": "Repeats",
            "tags": ["Sprache", "ﬁne"],
            "examples": ["hi ho"],
        },
        {"id": "count", "tags": ["numbers"]},
    ],
}

OLD: dict[str, Any] = {
    "name": "Old",
    "protocolVersion": "0.3.0",
    "url": "http://localhost:9/a2a",
    "preferredTransport": "JSONRPC",
    "additionalInterfaces": [
        {"url": "http://localhost:9/a2a", "transport": "JSONRPC"},
        {"url": "localhost:10", "transport": "GRPC"},
        {"url": "http://localhost:9/rest", "transport": "HTTP+JSON"},
    ],
    "supportsAuthenticatedExtendedCard": True,
    "skills": [],
}

ONE = Instance("e-1", "echo", "127.0.0.1:1", Status.HEALTHY, frozenset({"say"}), "1")
TWO = replace(ONE, id="e-2", status=Status.UNHEALTHY)


def everything(_instance: Instance, _card: Mapping[str, Any]) -> bool:
    return True


def nothing(_instance: Instance, _card: Mapping[str, Any]) -> bool:
    return False


def test_urls_lead_into_the_mesh_and_what_would_lead_out_or_be_wrong_is_gone() -> None:
    card = mesh_card(NEW, BASE)
    assert card["supportedInterfaces"] == [
        {"url": f"{BASE}/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "t"},
        {"url": f"{BASE}/v1", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
    ]
    assert card["capabilities"] == {"streaming": True}
    assert card["securitySchemes"] == NEW["securitySchemes"]
    assert card["skills"] == NEW["skills"]
    assert "signatures" not in card
    assert "url" not in card
    assert "example" not in str(card["supportedInterfaces"])


def test_a_tenant_leads_nobody_out_of_an_agents_paths() -> None:
    lies = {"url": "http://h/a2a", "protocolBinding": "HTTP+JSON", "tenant": "../../vault"}
    assert mesh_card({"name": "Liar", "supportedInterfaces": [lies]}, BASE)["supportedInterfaces"] == []


def test_cards_of_the_former_version_are_rewritten_too() -> None:
    assert mesh_card(OLD, BASE) == {
        "name": "Old",
        "protocolVersion": "0.3.0",
        "url": f"{BASE}/a2a",
        "preferredTransport": "JSONRPC",
        "additionalInterfaces": [
            {"url": f"{BASE}/a2a", "transport": "JSONRPC"},
            {"url": f"{BASE}/rest", "transport": "HTTP+JSON"},
        ],
        "skills": [],
    }


def test_at_the_root_a_gateway_tells_json_rpc_from_its_own_direct_calls() -> None:
    ways = [{"url": "http://localhost:9", "protocolBinding": each} for each in ("JSONRPC", "HTTP+JSON")]
    card = mesh_card({"name": "x", "supportedInterfaces": ways}, "https://gateway/v1/agents/x")
    urls = [each["url"] for each in card["supportedInterfaces"]]
    assert urls == ["https://gateway/v1/agents/x/", "https://gateway/v1/agents/x"]


def test_where_the_preferred_way_is_of_no_use_the_next_one_is_preferred() -> None:
    card = mesh_card({**OLD, "url": "localhost:10", "preferredTransport": "GRPC"}, BASE)
    assert (card["url"], card["preferredTransport"]) == (f"{BASE}/a2a", "JSONRPC")
    assert "url" not in mesh_card({"name": "x", "url": "localhost:10", "preferredTransport": "GRPC"}, BASE)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (CardQuery(), True),
        (CardQuery("AGAIN says"), True),
        (CardQuery("echo hi"), True),
        (CardQuery("FINE"), True),
        (CardQuery("again nothing"), False),
        (CardQuery(skills=["SAY"]), True),
        (CardQuery(skills=["say it", "count"]), True),
        (CardQuery(skills=["sa"]), False),
        (CardQuery(tags=["sprache", "Numbers"]), True),
        (CardQuery(tags=["spr"]), False),
        (CardQuery(types=["echo", "other"]), True),
        (CardQuery(types=["other"]), False),
        (CardQuery("again", ["say"], ["numbers"], ["echo"]), True),
        (CardQuery("again", ["say"], ["letters"], ["echo"]), False),
    ],
)
def test_cards_are_found_by_all_that_is_asked_for(query: CardQuery, found: bool) -> None:
    offers = {"echo": [(ONE, Offer(NEW))]}
    assert [each.type for each in listed_cards(offers, everything, query)] == ["echo"] * found


def test_an_agent_is_listed_once_with_how_many_of_its_instances_get_calls() -> None:
    offers = {
        "plain": [(replace(ONE, type="plain"), Offer())],
        "echo": [(TWO, Offer({**NEW, "name": "Second"})), (ONE, Offer(NEW, notes=("odd",)))],
        "a": [(replace(ONE, type="a"), Offer(OLD))],
    }
    first, echo = listed_cards(offers, everything)
    assert first.type == "a"
    assert (echo.card["name"], echo.instances, echo.healthy, echo.notes) == ("Echo", 2, 1, ("odd",))
    assert list(listed_cards(offers, nothing)) == []


def test_who_asks_for_a_card_gets_a_healthy_instances_if_it_may_see_it() -> None:
    second = {**NEW, "name": "Second"}
    assert card_of([(TWO, Offer(second)), (ONE, Offer(NEW))], everything) == NEW
    assert card_of([(TWO, Offer(second)), (ONE, Offer())], everything) == second
    assert card_of([(ONE, Offer(NEW))], nothing) is None
    assert card_of([], everything) is None


def test_to_see_a_card_one_must_be_allowed_to_read_it_or_to_send_a_message() -> None:
    requests = [(each.method, each.path, each.body and each.body.method) for each in ways_in(ONE, NEW)]
    assert requests == [
        ("GET", "/.well-known/agent-card.json", None),
        ("POST", "/", "SendMessage"),
        ("POST", "/v1/message:send", ""),
    ]


def test_types_and_capabilities_are_known_to_have_a_card_or_none() -> None:
    plain = replace(ONE, type="plain", capabilities=frozenset({"say", "count"}))
    with_card, without = destinations_with_card({"echo": [(ONE, Offer(NEW))], "plain": [(plain, Offer())]})
    assert with_card == {of_type("echo"), of_capability("say")}
    assert without == {of_type("plain"), of_capability("count")}
