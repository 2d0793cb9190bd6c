"""Conversations as people read them."""

from __future__ import annotations

import httpx

from weft.dashboard.pages.conversation_view import (
    MAX_SHOWN,
    asked,
    conversation_of,
    known_of,
    usage_of,
)


def test_ids_of_all_kinds_stay_one_part_of_the_path() -> None:
    for context_id in ("chat-1", "a/b c?d", "ä%2e#", "../x", "..", "."):
        url = httpx.URL("https://control" + asked(context_id, "acme"))
        assert url.path == f"/v1/contexts/{context_id}", context_id
        assert url.raw_path.startswith(b"/v1/contexts/")
        assert url.params["tenant"] == "acme"


def test_messages_say_who_said_what_and_what_is_long_is_cut() -> None:
    found = conversation_of(
        {
            "id": "c",
            "tenant": "default",
            "messageCount": 2,
            "messages": [
                {
                    "number": 1,
                    "role": "User",
                    "content": "hi",
                    "author": "spiffe://x/agent/ann/ann-1",
                    "at": 5,
                },
                {"number": 2, "role": "critic", "content": {"a": "b" * 9000}, "metadata": {"m": 1}},
                "no message",
            ],
            "state": {"step": 7},
            "stateRevision": 3,
            "artifacts": [{"name": "<b>", "mediaType": "text/html", "size": 12}, None],
        }
    )
    one, two = found.messages
    assert (one.author, one.agent_type, one.voice, one.text) == ("ann/ann-1", "ann", "user", "hi")
    assert (two.voice, two.agent_type, len(two.text)) == ("other", "", MAX_SHOWN)
    assert two.left_out > 900
    assert '"m": 1' in two.metadata
    assert (found.first, found.last, found.count) == (1, 2, 2)
    assert '"step": 7' in found.state
    assert [(each.name, each.size) for each in found.artifacts] == [("<b>", 12)]
    nothing = conversation_of(None)
    assert (nothing.messages, nothing.state, nothing.first) == ((), "", 0)


def test_an_operator_is_no_agent() -> None:
    found = conversation_of({"messages": [{"number": 1, "author": "spiffe://x/operator/local/door"}]})
    assert (found.messages[0].author, found.messages[0].agent_type) == ("operator/local/door", "")


def test_conversations_are_known_by_their_traces_and_by_what_they_used() -> None:
    traces = {
        "traces": [
            {"id": "1", "context": "old", "start": 1, "duration": 1, "errors": 0, "services": ["a"]},
            {"id": "2", "context": "new", "start": 5, "duration": 1, "errors": 2, "services": ["a", "b"]},
            {"id": "3", "context": "new", "start": 4, "duration": 1, "errors": 0, "services": ["c"]},
            {"id": "4", "context": "", "start": 9},
        ]
    }
    usage = {
        "items": [
            {"context": "new", "model": "m", "calls": 2, "failed": 1, "tokens": 10, "usd": 0.5},
            {"context": "new", "model": "n", "calls": 1, "tokens": 1, "usd": 0.25},
            {"context": "silent", "model": "m", "calls": 1, "tokens": 7, "usd": 0},
            {"context": "", "model": "m", "calls": 99},
        ]
    }
    new, old, silent = known_of(traces, usage)
    assert (new.id, new.traces, new.errors, new.services) == ("new", 2, 2, ("a", "b", "c"))
    assert (new.last_seen, new.calls, new.tokens, new.usd) == (6, 3, 11, 0.75)
    assert (old.id, old.calls, silent.id, silent.last_seen) == ("old", 0, "silent", 0)
    assert [(each.model, each.tokens) for each in usage_of(usage, "new")] == [("m", 10), ("n", 1)]
    assert known_of(None, None) == []
    assert usage_of(None, "x") == []
