"""`weft tools`, on an API that has tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.tool_lists import ToolMesh, offering, tool, tool_mesh

from weft.cli.exit_codes import ExitCode
from weft.cli.main import run
from weft.model.offer import Offer


@pytest.fixture
async def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ToolMesh]:
    async with tool_mesh(tmp_path) as mesh:
        for name, value in (await mesh.environ()).items():
            monkeypatch.setenv(name, value)
        await mesh.offer(
            "files",
            offering(
                tool("read", description="Reads a\n\x1b[31mfile."),
                tool("p\u0430y"),
                prompts=({"name": "p"},),
            ),
        )
        await mesh.offer("slow", Offer(notes=("no answer within 10 s", "tools/list: \x1b[2J")))
        await mesh.offer("web", offering(tool("search", description="Looks for pages.")))
        yield mesh


async def weft(*arguments: str) -> ExitCode | int:
    return await asyncio.to_thread(run, arguments)


async def test_tools_are_listed_and_told_that_there_are_notes(
    mesh: ToolMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await weft("tools") == ExitCode.OK
    shown = capsys.readouterr()
    assert [line.split()[:2] for line in shown.out.splitlines()] == [
        ["NAME", "SERVER"],
        ["read", "files"],
        ["search", "web"],
    ]
    assert "Reads a [31mfile." in shown.out
    assert shown.err == "3 notes about files, slow: see `weft tools --notes`\n"


async def test_tools_are_found_by_text_and_by_server(
    mesh: ToolMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await weft("tools", "PAGES", "-o", "json") == ExitCode.OK
    [found] = json.loads(capsys.readouterr().out)
    assert (found["name"], found["server"], found["aliases"]) == ("search", "web", ["web_search"])
    assert found["inputSchema"] == {"type": "object"}
    assert await weft("tools", "--server", "files", "-o", "json") == ExitCode.OK
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["read"]
    assert await weft("tools", "nothing") == ExitCode.OK
    assert "no tool has 'nothing' in it" in capsys.readouterr().err


async def test_notes_show_servers_and_what_is_the_matter_with_them(
    mesh: ToolMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await weft("tools", "--notes") == ExitCode.OK
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    lines = [line.split() for line in shown.splitlines()]
    assert lines[1] == ["files", "2026-07-28", "1", "1", "0", "0"]
    assert lines[2] == ["slow", "not", "read", "yet", "0", "0", "0", "0"]
    assert "tool 'p\\u0430y' is left out" in shown
    assert "no answer within 10 s" in shown
    assert await weft("tools", "--notes", "-o", "json") == ExitCode.OK
    assert [each["type"] for each in json.loads(capsys.readouterr().out)] == ["files", "slow", "web"]


async def test_more_tools_than_a_page_has_are_listed(
    mesh: ToolMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    for server in ("many", "more"):
        await mesh.offer(server, offering(*(tool(f"{server}{each}") for each in range(700))))
    names: list[str] = []
    async with asyncio.timeout(60):
        while len(names) < 1402:
            assert await weft("tools", "-o", "json") == ExitCode.OK
            names = [each["name"] for each in json.loads(capsys.readouterr().out)]
    expected = [f"{server}{each}" for server in ("many", "more") for each in range(700)]
    assert names == ["read", *expected, "search"]


async def test_one_tool_is_shown_by_any_of_its_names(
    mesh: ToolMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("read", "files_read"):
        assert await weft("tool", "show", name) == ExitCode.OK
        shown = capsys.readouterr().out
        assert "files_read" in shown
        assert "Reads a [31mfile." in shown
        assert '"type": "object"' in shown
    assert await weft("tool", "show", "search", "-o", "json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["server"] == "web"
    assert await weft("tool", "show", "nothing") == ExitCode.NOT_FOUND
    assert "there is no tool 'nothing'" in capsys.readouterr().err
