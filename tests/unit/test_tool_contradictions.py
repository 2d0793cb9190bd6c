"""Tools that cannot all hold are refused before anything is written, with where the mistake is."""

from __future__ import annotations

from typing import Any

import pytest

from weft.errors import InvalidResource
from weft.model.manifest import check_together, parse_documents, parse_manifest
from weft.model.yaml_tree import dump


def tool(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "weft.dev/v1alpha1", "kind": "Tool", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"server": "tools"}, "server", "is reserved"),
        ({"server": "a", "tools": [{"name": "x"}, {"name": "x"}]}, "spec", "name 'x' is there twice"),
        (
            {"server": "a", "tools": [{"name": "x", "rename": "z"}, {"name": "y", "rename": "z"}]},
            "spec",
            "rename 'z' is there twice",
        ),
        ({"server": "a", "tools": [{"name": "x", "hidden": True, "rename": "z"}]}, "tools[0]", "hidden"),
        ({"server": "a", "tools": [{"name": "x", "rename": "\u0430dd"}]}, "tools[0].rename", "pattern"),
        ({"server": "a", "tools": [{"name": "add one"}]}, "tools[0].name", "cannot be seen as it is"),
        ({"server": "a", "prefix": "p" * 60, "tools": [{"name": "x" * 69}]}, "tools[0].name", "cannot"),
        (
            {"server": "a", "prefix": "p.", "tools": [{"name": "x"}, {"name": "y", "rename": "p.x"}]},
            "tools[1].rename",
            "'x' is seen as 'p.x' already",
        ),
        ({"server": "a", "limits": {"timeout": "2h"}}, "limits.timeout", "1h"),
        ({"server": "a", "limits": {"maxResult": 1}}, "limits.maxResult", "1024"),
    ],
)
def test_a_tool_that_cannot_hold_is_refused(spec: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        parse_manifest(dump([tool("t", **spec)]))
    [problem] = refused.value.problems
    assert field in problem.field
    assert message in problem.message


@pytest.mark.parametrize(
    ("second", "field", "message"),
    [
        ({"server": "web"}, "spec.server", "Tool 'one' is for server 'web' already"),
        (
            {"server": "other", "tools": [{"name": "find", "rename": "search"}]},
            "spec.tools[0].rename",
            "Tool 'one' gives the name 'search' to another tool already",
        ),
    ],
)
def test_two_tools_that_do_not_go_together_are_refused(
    second: dict[str, Any], field: str, message: str
) -> None:
    first = tool("one", server="web", tools=[{"name": "look", "rename": "search"}])
    with pytest.raises(InvalidResource) as refused:
        check_together(parse_documents(dump([first, tool("two", **second)]), "mesh.yaml"))
    [problem] = refused.value.problems
    assert problem.field == field
    assert message in problem.message


def test_what_goes_together_is_taken() -> None:
    tools = [
        tool(
            "web", server="web", tools=[{"name": "add one", "hidden": True}, {"name": "a b", "rename": "ab"}]
        ),
        tool("files", server="files", expose=False, prefix="fs.", tools=[{"name": "read"}]),
    ]
    documents = parse_documents(dump(tools), "mesh.yaml")
    check_together(documents)
    assert [each.resource.spec.server for each in documents] == ["web", "files"]
