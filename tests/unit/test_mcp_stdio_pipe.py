"""Lines of a server on pipes, in whichever pieces they come; requests about tools, whatever is in them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft import Agent
from weft.mcp_stdio.pipe import LineTooLong, lines
from weft.sdk.mcp.listing import DISCOVER, LIST, LISTEN

pieces_of_lines = st.lists(st.binary(max_size=20).map(lambda each: each.replace(b"\r", b"\n")), max_size=20)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def fed(*pieces: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    for each in pieces:
        reader.feed_data(each)
    reader.feed_eof()
    return reader


@given(pieces_of_lines)
async def test_lines_are_the_same_in_whichever_pieces_they_come(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    expected = [each.strip() for each in whole.split(b"\n")[:-1] if each.strip()]
    assert [each async for each in lines(fed(*pieces))] == expected


async def test_a_line_is_not_kept_beyond_the_limit() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"short\n" + b"x" * 100)
    found = []

    async def read() -> None:
        async for each in lines(reader, limit=50):
            found.append(each)  # noqa: PERF401 -- what came before is there

    with pytest.raises(LineTooLong):
        await read()
    assert found == [b"short"]


def agent() -> Agent:
    agent = Agent("worker", version="1")

    @agent.handles("greet")
    async def greet(name: str) -> str:
        return name

    return agent


LISTING = agent().asgi.mcp.agent.listing


@given(
    st.sampled_from([DISCOVER, LIST, LISTEN]),
    st.binary() | anything.map(lambda each: json.dumps(each).encode()),
)
def test_what_is_no_request_is_left_to_the_server(method: str, body: bytes) -> None:
    assert LISTING.answer(method, body) is None


META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@given(st.text() | st.integers(), anything)
def test_a_request_in_order_is_answered_whatever_else_is_in_it(identity: Any, extra: Any) -> None:
    params = {"_meta": {**META, "more": extra}, "extra": extra}
    message = {"jsonrpc": "2.0", "id": identity, "method": LIST, "params": params}
    told = LISTING.answer(LIST, json.dumps(message).encode())
    if told is not None:  # what JSON cannot say is for the server to refuse
        status, answer = told
        assert (status, answer["id"]) == (200, identity)
        assert [each["name"] for each in answer["result"]["tools"]] == ["greet"]
