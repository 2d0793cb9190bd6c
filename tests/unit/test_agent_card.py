"""What is taken of the cards of A2A agents, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from weft.model.agent_card import (
    MAX_INTERFACES,
    MAX_SKILLS,
    Interface,
    card_notes,
    interfaces,
    mcp_path,
    read_card,
    skill_capabilities,
)
from weft.model.offer import MAX_CARD_BYTES, MCP_EXTENSION


def card(**fields: Any) -> dict[str, Any]:
    return {"name": "Echo", **fields}


def skill(identity: Any = "echo", **fields: Any) -> dict[str, Any]:
    return {"id": identity, **fields}


def test_a_card_is_taken_as_it_is_with_all_that_is_unknown() -> None:
    given = card(skills=[skill(tags=["a"])], capabilities={"streaming": True}, future={"x": [1, None]})
    assert read_card(json.dumps(given).encode()) == given


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b'{"name": "Echo"', "not JSON"),
        (b'["Echo"]', "not a JSON object"),
        (b'{"name": "\xff"}', "not UTF-8"),
        (b'{"name": "\\ud800"}', "surrogate"),
        (b'{"name": "a", "name": "b"}', "twice"),
        (b'{"name": "a", "x": NaN}', "no number"),
        (b'{"name": "a", "x": 1e999}', "larger"),
        (b'{"name": "a", "x": ' + b"[" * 100 + b"]" * 100 + b"}", "deeper"),
        (b'{"name": "a", "x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "deeper"),
        (b'{"name": "' + b"x" * MAX_CARD_BYTES + b'"}', "bytes"),
    ],
)
def test_what_is_no_json_object_within_limits_is_no_card(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_card(content)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"name": ""},
        {"name": 7},
        card(description=["x"]),
        card(version=1.0),
        card(url=1),
        card(skills={"id": "x"}),
        card(skills=["x"]),
        card(skills=[{}]),
        card(skills=[skill(7)]),
        card(skills=[skill(name={})]),
        card(skills=[skill(tags="tag")]),
        card(skills=[skill(tags=[1])]),
        card(skills=[skill(examples=[{}])]),
        card(skills=[skill(str(number)) for number in range(MAX_SKILLS + 1)]),
        card(supportedInterfaces="http://x"),
        card(supportedInterfaces=[{"url": 1}]),
        card(supportedInterfaces=[{}] * (MAX_INTERFACES + 1)),
        card(additionalInterfaces=[None]),
        card(capabilities=["x"]),
    ],
)
def test_a_card_whose_fields_are_of_other_types_is_not_taken(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"card|skills|Interfaces|name"):
        read_card(json.dumps(wrong).encode())


def test_skills_become_capabilities_where_their_ids_can_be_host_names() -> None:
    found, notes = skill_capabilities(
        card(
            skills=[
                skill("Word_Count"),
                skill("ask.echo twice"),
                skill("word-count"),
                skill("ünï"),
                skill("-"),
            ]
        )
    )
    assert found == ["word-count", "ask-echo-twice"]
    assert len(notes) == 2
    assert "'ünï'" in notes[0]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://127.0.0.1:9999/a2a/rpc", "/a2a/rpc"),
        ("https://example.com", "/"),
        ("http://example.com/a2a/", "/a2a/"),
        ("http://example.com/a2a?key=1#x", "/a2a"),
        ("/relative", "/relative"),
        ("http://example.com/../admin", None),
        ("http://example.com/a//b", None),
        ("http://example.com/%2e%2e/admin", None),
        ("http://example.com/a b", None),
        ("http://example.com/ü", None),
        ("http://[::1", None),
        ("", None),
        ("ftp://example.com/x", None),
        ("example.com:50051", None),
        ("http://example.com/" + "x" * 2000, None),
    ],
)
def test_of_an_interface_only_the_path_is_used_and_only_where_it_means_one_thing(
    url: str, path: str | None
) -> None:
    assert Interface(url, "JSONRPC").path == path


@pytest.mark.parametrize(
    "tenant", ["../../vault", "..", ".", "a/b", "a\\b", "%2e%2e", "a?b", "a#b", "a b", 5, ["a"]]
)
def test_an_interface_whose_tenant_would_lead_clients_elsewhere_is_none(tenant: Any) -> None:
    url = "http://127.0.0.1/a2a"
    [way] = interfaces(
        card(supportedInterfaces=[{"url": url, "protocolBinding": "HTTP+JSON", "tenant": tenant}])
    )
    assert way.path is None
    for fine in ("", None, "acme", "acme.eu-1", "t@x:1"):
        assert Interface(url, "HTTP+JSON", fine).path == "/a2a"


def test_interfaces_of_both_versions_are_known_and_grpc_has_no_way() -> None:
    given = card(
        url="http://localhost:1/old",
        preferredTransport="HTTP+JSON",
        additionalInterfaces=[{"url": "http://localhost:1/rpc", "transport": "JSONRPC"}],
        supportedInterfaces=[{"url": "http://localhost:1/grpc", "protocolBinding": "GRPC"}],
    )
    assert [(each.binding, each.path) for each in interfaces(given)] == [
        ("GRPC", None),
        ("HTTP+JSON", "/old"),
        ("JSONRPC", "/rpc"),
    ]


def test_a_card_that_names_another_host_is_told_of() -> None:
    assert card_notes(card(url="http://localhost:1/x")) == []
    assert card_notes(card(url="http://[::1]:1/x")) == []
    [note] = card_notes(card(url="http://evil.example/x"))
    assert "evil.example" in note


@pytest.mark.parametrize(
    ("extension", "path"),
    [
        ({"uri": MCP_EXTENSION, "params": {"path": "/tools"}}, "/tools"),
        ({"uri": MCP_EXTENSION}, "/mcp"),
        ({"uri": MCP_EXTENSION, "params": {"path": "no path"}}, None),
        ({"uri": MCP_EXTENSION, "params": {"path": 7}}, None),
        ({"uri": "https://other.example"}, None),
        ("text", None),
    ],
)
def test_a_card_may_say_where_the_agent_serves_mcp(extension: object, path: str | None) -> None:
    assert mcp_path(card(capabilities={"extensions": [extension]})) == path
    assert mcp_path(card(capabilities={"extensions": extension})) is None
