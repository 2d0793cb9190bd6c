"""Entries of lists, written once, and the answers into which they go."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from mcp_types import Tool
from starlette.responses import Response

from weft.controlplane.mcp import written
from weft.controlplane.mcp.written import Writer, fill, filling

TOOL = {"name": "add", "inputSchema": {"type": "object"}, "description": "é"}


async def answered(
    body: str, entries: list[bytes] | None, status: int = 200
) -> tuple[Any, dict[bytes, bytes]]:
    """What arrives of an answer, and its headers."""
    scope: dict[str, Any] = {"type": "http", "state": {}}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    if entries is not None:
        fill(scope, "tools", entries)
    await Response(body, status)(scope, receive, filling(scope, send))
    start, content = sent
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(content["body"])).encode()
    return json.loads(content["body"]), headers


async def test_entries_go_where_the_list_is_empty() -> None:
    writer = Writer(Tool)
    body = '{"id":1,"result":{"tools":[],"nextCursor":"a"}}'

    answer, _ = await answered(body, [writer.write(TOOL), b"", writer.write(TOOL)])

    assert answer == {"id": 1, "result": {"tools": [TOOL, TOOL], "nextCursor": "a"}}
    assert (await answered(body, []))[0] == json.loads(body)


async def test_what_has_no_list_stays_as_it_is() -> None:
    assert (await answered('{"tools":[]}', None))[0] == {"tools": []}
    assert (await answered('{"error":{}}', [b"{}"], status=400))[0] == {"error": {}}


def test_what_the_sdk_does_not_take_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert Writer(Tool).write({"name": "add"}) == b""
    assert "'add' is no Tool" in caplog.text


def test_entries_are_written_once_and_kept_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    def note(definition: Any) -> Any:
        shown.append(definition)
        return definition

    writer = Writer(Tool, note)
    others = [{**TOOL, "name": f"t{each}"} for each in range(10)]

    assert writer.write(TOOL) == writer.write(TOOL)
    assert shown == [TOOL]
    monkeypatch.setattr(written, "MAX_WRITTEN_BYTES", 300)
    for each in others:
        writer.write(each)
    writer.write(others[-1])
    writer.write(TOOL)
    assert shown == [TOOL, *others, TOOL]
