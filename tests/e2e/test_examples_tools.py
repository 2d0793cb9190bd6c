"""The example of tools is run: two foreign MCP servers, a foreign client, and an operator who looks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.binaries import WEFT
from tests.e2e.weft_cli import EXAMPLES, PAUSE, TIMEOUT, Weft, wait_for_line, weft_user

DIRECTORY = EXAMPLES / "tools"

CALLING = """
import asyncio, sys
from mcp import Client

async def main():
    async with Client("http://tools.mesh/mcp", mode=sys.argv[1]) as client:
        for name in sys.argv[2:]:
            try:
                result = await client.call_tool(name, {"name": "todo"} if "note" in name else {})
                print(name, "failed" if result.is_error else "called", flush=True)
            except Exception as error:
                print(name, "refused", error, flush=True)

asyncio.run(main())
"""
"""Calls tools by their names, and says what came of it."""


LISTENING = """
import asyncio
from mcp import Client

async def main():
    async with Client("http://tools.mesh/mcp") as client, client.listen(tools_list_changed=True) as changes:
        print("listening", flush=True)
        async for change in changes:
            pass
        print("the server ended it", flush=True)

asyncio.run(main())
"""
"""Hears of changes until the server ends the stream, as the standard says; a broken one is an error."""


@pytest.fixture
def weft() -> Iterator[Weft]:
    with weft_user() as weft:
        weft.environ["PATH"] = f"{Path(WEFT).parent}{os.pathsep}{weft.environ['PATH']}"
        yield weft


def eventually_lists(weft: Weft, names: list[str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while (found := [each["name"] for each in weft.json("tools")]) != names:
        assert time.monotonic() < deadline, f"{found}; {weft.run('tools', '--notes')}"
        time.sleep(PAUSE)


def test_tools_of_foreign_servers_are_those_of_one(weft: Weft) -> None:
    weft.up(str(DIRECTORY / "mesh.yaml"))
    eventually_lists(weft, ["now", "read_note", "write"])
    assert "erase_all" not in weft.ok("tools")

    shown = weft.ok("run", "--", sys.executable, str(DIRECTORY / "reader.py"))

    assert "now: The time in UTC." in shown
    assert "read_note: Read a note." in shown
    assert "write" not in shown  # a policy forbids it
    assert "text='Nothing.'" in shown

    hidden = ["read", "erase_all", "notes_erase_all"]
    forbidden = ["write", "notes_write"]
    for mode in ("2026-07-28", "legacy"):
        seen = ["now", "clock_now", "read_note", "notes_read_note"]
        called = weft.ok("run", "--", sys.executable, "-c", CALLING, mode, *seen, *hidden, *forbidden)
        outcomes = [line.split()[:2] for line in called.splitlines()]
        assert outcomes == [
            *([each, "called"] for each in seen),
            *([each, "refused"] for each in (*hidden, *forbidden)),
        ], called

    assert weft.ok("tool", "call", "read_note", "name=todo") == "Nothing.\n"
    answer = weft.json("tool", "call", "notes_read_note", "--data", '{"name": "todo"}')
    assert answer["structured"] == {"result": "Nothing."}
    refused = weft.run("tool", "call", "erase_all")
    assert (refused.returncode, refused.stderr) == (4, "weft: Unknown tool: erase_all\n")

    listening = weft.start("run", "--", sys.executable, "-c", LISTENING)
    wait_for_line(listening, "listening")
    weft.ok("down")
    assert "the server ended it" in listening.communicate(timeout=TIMEOUT)[0]
