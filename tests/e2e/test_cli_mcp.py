"""MCP servers join a mesh by `weft run`, and leave it with Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import mcp_servers
from tests.e2e.weft_cli import PAUSE, TIMEOUT, Weft, interrupt, weft_user
from tests.integration import mcp_stdio_server

pytestmark = pytest.mark.timeout(240)

SERVERS = {
    "mcp": [str(Path(mcp_servers.__file__)), "--only", "2025-11-25"],
    "mcp-stdio": [str(Path(mcp_stdio_server.__file__))],
}

CLIENT = """
import asyncio
from mcp import Client

async def main():
    async with Client("http://tools.mesh/mcp") as client:
        for name in ("http_echo", "pipes_echo"):
            print(name, (await client.call_tool(name, {"text": "grüße"})).content[0].text)

asyncio.run(main())
"""


@pytest.fixture
def weft() -> Iterator[Weft]:
    with weft_user() as user:
        user.write("mesh.yaml", "")
        user.up()
        yield user


def join(weft: Weft, agent_type: str, protocol: str) -> subprocess.Popen[str]:
    return weft.start(
        *("run", "--type", agent_type, "--protocol", protocol, "--", sys.executable, *SERVERS[protocol])
    )


def tools(weft: Weft) -> dict[str, Any]:
    return {each["name"]: each for each in weft.json("tools")}


def wait_for_tools(weft: Weft, names: set[str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not names <= (found := tools(weft)).keys():
        assert time.monotonic() < deadline, f"{sorted(found)}; {weft.run('tools', '--notes')}"
        time.sleep(PAUSE)


def test_servers_of_mcp_join_by_a_command_and_leave_nothing(weft: Weft) -> None:
    joined = [join(weft, "http", "mcp"), join(weft, "pipes", "mcp-stdio")]
    wait_for_tools(weft, {"http_echo", "pipes_echo", "pid", "failing"})

    said = weft.ok("run", "--", sys.executable, "-c", CLIENT)
    assert "http_echo grüße\npipes_echo grüße" in said

    # The one ends by the signal, the other has been told well. That nothing is left the fixture sees to.
    assert [interrupt(each)[0] for each in joined] == [128 + signal.SIGTERM, 0]
