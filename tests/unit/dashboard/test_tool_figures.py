"""Tools, what was called of them, and who may."""

from __future__ import annotations

from typing import Any

from weft.dashboard.pages import tool_figures
from weft.dashboard.pages.tool_figures import MayCall


def tool(name: str, server: str = "notes", **more: Any) -> dict[str, Any]:
    """A tool, as the API tells it."""
    return {
        "name": name,
        "server": server,
        "original": name,
        "aliases": [f"{server}_{name}"],
        "title": "",
        "description": "Reads.\nAnd more.",
        "inputSchema": {"type": "object"},
        **more,
    }


def called(name: str, server: str = "notes", **more: Any) -> dict[str, Any]:
    """What was called of it, likewise."""
    figures = {"calls": 40, "errors": 1, "p50": 0.01, "p99": 0.5, "callers": ["planner"]}
    return {"tool": name, "server": server, "callsPerSecond": 1.0, "errorsPerSecond": 0.0, **figures, **more}


def test_calls_are_found_by_any_of_a_tools_names() -> None:
    tools = [tool("read", original="get"), tool("write"), tool("read", "wiki", aliases=[])]
    rows = tool_figures.tool_rows(tools, [called("get"), called("notes_write", calls=7)])
    assert [each["calls"] for each in rows] == [40, 7, 0]
    assert (rows[0]["errorShare"], rows[0]["p99"], rows[0]["callers"]) == (0.025, 0.5, "planner")
    assert (rows[2]["errorShare"], rows[2]["p99"]) == (None, None)


def test_a_row_has_the_first_line_of_a_description() -> None:
    [row] = tool_figures.tool_rows([tool("read")], [])
    assert row["description"] == "Reads."
    [row] = tool_figures.tool_rows([tool("read", description="x" * 500)], [])
    assert len(row["description"]) == 201


def test_what_was_called_and_is_gone_is_told() -> None:
    assert tool_figures.traffic_of(tool("read"), [called("old"), called("read")]) == called("read")
    assert tool_figures.uncatalogued([tool("read")], [called("read"), called("old")]) == [called("old")]


def test_a_server_that_could_not_be_read_says_so() -> None:
    server = {
        "type": "wiki",
        "title": "",
        "path": "",
        "generation": None,
        "tools": 0,
        "prompts": 0,
        "resources": 1,
        "templates": 2,
        "notes": ["timed out"],
    }
    [row] = tool_figures.server_rows([server])
    assert (row["generation"], row["resources"], row["notes"]) == ("not read yet", 3, 1)
    assert tool_figures.notes_of([server]) == [("wiki", "timed out")]


def test_policies_are_asked_by_the_servers_own_name_for_a_tool() -> None:
    question = tool_figures.can_question("planner", tool("open_issue", "github", original="create_issue"))
    assert question == {
        "caller": "planner",
        "action": "call",
        "target": "github",
        "path": "/mcp",
        "rpc": "tools/call",
        "tool": "create_issue",
    }


def test_who_may_call_and_who_did() -> None:
    answer = {"allowed": False, "policy": "closed", "reason": "denied by closed", "cases": []}
    found = tool_figures.may_call("planner", answer)
    assert found == MayCall("planner", False, "closed", "denied by closed")
    row = tool_figures.callers_row(found, ["planner"])
    assert (row["allowed"], row["policy"], row["called"]) == ("may not", "closed", "yes")


def test_a_schema_is_shown_as_json() -> None:
    assert tool_figures.schema_text(tool("read")) == '{\n  "type": "object"\n}'
