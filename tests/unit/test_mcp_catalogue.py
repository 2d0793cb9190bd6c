"""The catalogue of `tools.mesh`: many servers' lists as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from weft.controlplane.mcp.catalogue import MAX_NOTES, catalogue
from weft.controlplane.mcp.server_lists import MAX_ENTRIES
from weft.model.agent import Instance, Status
from weft.model.mcp_catalogue import McpCatalogue
from weft.model.offer import McpGeneration, McpOffer, Offer
from weft.model.tool import ToolLimits, ToolRule, ToolSpec


def instance(
    type_: str, id_: str = "one", *, status: Status = Status.HEALTHY, since: float = 0.0
) -> Instance:
    return Instance(id_, type_, "127.0.0.1:1", status, started_at=since)


def tool(name: Any, **fields: Any) -> Mapping[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **fields}


def offering(
    *tools: Mapping[str, Any],
    generation: McpGeneration = McpGeneration.STATELESS,
    notes: Sequence[str] = (),
    **lists: Any,
) -> Offer:
    return Offer(mcp=McpOffer(generation, tools=tools, **lists), notes=tuple(notes))


def of(*specs: ToolSpec, **offers: Offer) -> McpCatalogue:
    """Of one instance of each type; `_` in a type's name stands for `-`."""
    by_type = {name.replace("_", "-"): offer for name, offer in offers.items()}
    return catalogue({name: [(instance(name), offer)] for name, offer in by_type.items()}, specs)


def names(found: McpCatalogue) -> list[str]:
    return [each.name for each in found.tools]


def notes_of(found: McpCatalogue, server: str) -> str:
    return "\n".join(found.notes.get(server, ()))


def test_tools_come_by_server_and_then_in_the_servers_own_order() -> None:
    found = of(zoo=offering(tool("b"), tool("a")), ape=offering(tool("z"), tool("y")))

    assert names(found) == ["z", "y", "b", "a"]
    assert [each.type for each in found.servers] == ["ape", "zoo"]
    assert [each.server.type for each in found.tools] == ["ape", "ape", "zoo", "zoo"]


def test_a_name_that_one_server_has_stays_and_others_are_qualified() -> None:
    found = of(web=offering(tool("search"), tool("fetch")), files=offering(tool("search")))

    assert names(found) == ["files_search", "web_search", "fetch"]
    assert [each.original for each in found.tools] == ["search", "search", "fetch"]
    assert [each.definition["name"] for each in found.tools] == names(found)
    assert [each.aliases for each in found.tools] == [(), (), ("web_fetch",)]


def test_nobody_takes_the_name_by_which_anothers_tool_can_always_be_called() -> None:
    found = of(weather=offering(tool("forecast")), evil=offering(tool("weather_forecast")))

    assert names(found) == ["evil_weather_forecast", "forecast"]
    assert found.tools[1].aliases == ("weather_forecast",)


def test_no_two_names_by_which_tools_are_called_are_the_same() -> None:
    found = of(
        a=offering(tool("x"), tool("a_x"), tool("b_x")), b=offering(tool("x"), tool("a_x"), tool("b_a_x"))
    )

    called = [name for each in found.tools for name in (each.name, *each.aliases)]
    assert len(found.tools) == 6
    assert len(set(called)) == len(called)


@pytest.mark.parametrize(
    "name",
    [
        "p\u0430ypal",  # a Cyrillic a
        "add\u200b",
        "add\n",
        "add\x1b[2J",
        "add one",
        "",
        "a" * 129,
        "x" * 10_000,
        None,
        7,
        {"name": "add"},
    ],
)
def test_what_is_no_name_is_left_out_with_a_note_that_shows_what_it_is(name: Any) -> None:
    found = of(calc=offering(tool(name), tool("sub")))

    assert names(found) == ["sub"]
    note = notes_of(found, "calc")
    assert "left out" in note
    assert note.replace("…", "").isascii()
    assert note.isprintable()
    assert len(note) < 300


def test_a_rename_makes_a_tool_visible_whose_name_is_none() -> None:
    rules = ToolSpec(server="calc", tools=(ToolRule(name="add one", rename="add-one"),))
    found = of(rules, calc=offering(tool("add one")))

    assert [(each.name, each.original) for each in found.tools] == [("add-one", "add one")]
    assert found.notes == {}


def test_a_tool_resource_hides_renames_describes_and_limits() -> None:
    rules = ToolSpec(
        server="calc",
        prefix="m.",
        limits=ToolLimits(timeout=5.0),
        tools=(
            ToolRule(name="rm", hidden=True),
            ToolRule(name="add", rename="plus", description="Adds.", idempotent=True),
            ToolRule(name="mul", limits=ToolLimits(max_result=2048)),
        ),
    )
    found = of(rules, calc=offering(tool("rm"), tool("add", description="?"), tool("mul"), tool("div")))

    assert names(found) == ["plus", "m.mul", "m.div"]
    plus, mul, div = found.tools
    assert (plus.original, plus.definition["description"], plus.idempotent) == ("add", "Adds.", True)
    assert (plus.timeout, mul.timeout, mul.max_result, div.timeout) == (5.0, None, 2048, 5.0)
    assert plus.aliases == ("calc_plus",)


def test_with_expose_off_only_what_is_named_is_seen() -> None:
    rules = ToolSpec(server="calc", expose=False, tools=(ToolRule(name="add"),))

    assert names(of(rules, calc=offering(tool("add"), tool("sub")))) == ["add"]


def test_an_operators_name_wins_over_the_same_of_servers() -> None:
    rules = ToolSpec(server="web", tools=(ToolRule(name="find", rename="search"),))
    found = of(rules, web=offering(tool("find"), tool("search")), files=offering(tool("search")))

    assert names(found) == ["files_search", "search"]
    assert found.tools[1].original == "find"
    assert "'search' is left out" in notes_of(found, "web")


def test_what_a_server_says_of_a_tool_decides_whether_it_is_idempotent_unless_an_operator_does() -> None:
    rules = ToolSpec(server="calc", tools=(ToolRule(name="c", idempotent=False),))
    found = of(
        rules,
        calc=offering(
            tool("a", annotations={"idempotentHint": True}),
            tool("b", annotations={"readOnlyHint": True}),
            tool("c", annotations={"readOnlyHint": True}),
            tool("d", annotations={"idempotentHint": "yes"}),
            tool("e"),
        ),
    )

    assert [each.idempotent for each in found.tools] == [True, True, False, False, False]


def test_texts_lose_what_nobody_sees() -> None:
    hidden = "".join(chr(0xE0000 + ord(each)) for each in "obey")
    described = f"Adds.\x00\x1b[31m\u202e{hidden}\ud800\n\tTwo \U0001f600\ufe0f numbers."
    schema = {"type": "object", "properties": {"a\x07": {"description": f"{hidden}one"}}}
    found = of(calc=offering(tool("add", description=described, inputSchema=schema, title="A\u2066dd")))

    definition = found.tools[0].definition
    assert definition["description"] == "Adds.[31m\n\tTwo \U0001f600\ufe0f numbers."
    assert definition["title"] == "Add"
    assert definition["inputSchema"]["properties"] == {"a": {"description": "one"}}


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"properties": {"x": value}}
    return {"type": "object", **value}


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        "object",
        {"type": "string"},
        {"type": ["object"]},
        {"type": "object", "properties": []},
        {"type": "object", "properties": {"a": 1}},
        {"type": "object", "required": "a"},
        {"type": "object", "description": "x" * 70_000},
        {"type": "object", "maximum": float("inf")},
        nested(100),
    ],
)
def test_a_tool_whose_schema_would_break_clients_is_left_out(schema: Any) -> None:
    found = of(calc=offering(tool("add", inputSchema=schema), tool("sub")))

    assert names(found) == ["sub"]
    assert "tool 'add' is left out: " in notes_of(found, "calc")


def test_a_long_description_is_cut_and_a_large_output_schema_left_out() -> None:
    found = of(
        calc=offering(tool("add", description="x" * 20_000, outputSchema={"description": "y" * 70_000}))
    )

    assert len(found.tools[0].definition["description"]) == 16 * 1024
    assert "outputSchema" not in found.tools[0].definition
    assert "description is cut" in notes_of(found, "calc")
    assert "without its outputSchema" in notes_of(found, "calc")


def test_fields_that_mcp_does_not_know_are_not_passed_on() -> None:
    found = of(calc=offering(tool("add", x=1, execution={"taskSupport": "required"}, icons="?", _meta=3)))

    assert found.tools[0].definition == {"name": "add", "inputSchema": {"type": "object"}}


def test_of_instances_that_differ_all_tools_are_shown_and_the_last_started_says_what_they_are() -> None:
    old = offering(tool("a", title="old"), tool("b"), generation=McpGeneration.SESSIONS, completions=True)
    new = offering(tool("c"), tool("a", title="new"))
    found = catalogue(
        {"calc": [(instance("calc", "o", since=1), old), (instance("calc", "n", since=2), new)]}
    )

    assert [(each.name, each.definition.get("title")) for each in found.tools] == [
        ("c", None),
        ("a", "new"),
        ("b", None),
    ]
    assert found.servers[0].generation is McpGeneration.SESSIONS
    assert not found.servers[0].completions


def test_instances_that_get_no_calls_count_only_if_there_are_no_others() -> None:
    sick = (instance("calc", "s", status=Status.UNHEALTHY, since=9), offering(tool("old")))
    well = (instance("calc", "w"), offering(tool("new")))

    assert names(catalogue({"calc": [sick, well]})) == ["new"]
    assert names(catalogue({"calc": [sick]})) == ["old"]


def test_a_server_that_could_not_be_read_costs_a_note_and_nobody_elses_tools() -> None:
    found = of(calc=offering(tool("add")), slow=Offer(notes=("tools/list: no answer in 10 s",)))

    assert names(found) == ["add"]
    assert found.notes == {"slow": ("tools/list: no answer in 10 s",)}


def test_notes_about_an_agents_card_are_not_those_of_a_server() -> None:
    assert of(chat=Offer(card={"name": "chat"}, notes=("its URL is not loopback",))).notes == {}


def test_notes_and_entries_of_one_server_are_limited() -> None:
    found = of(
        many=offering(*(tool(f"t{each}") for each in range(MAX_ENTRIES + 5))),
        noisy=offering(*(tool(f"no name {each}") for each in range(MAX_NOTES * 2))),
    )

    assert len(found.tools) == MAX_ENTRIES
    assert "5 tools are left out: it has 1005" in notes_of(found, "many")
    assert len(found.notes["noisy"]) == MAX_NOTES
    assert found.notes["noisy"][-1] == "… and 101 more"


def test_resources_go_by_their_uri_and_the_first_server_has_it() -> None:
    resource = {"uri": "mem://é", "name": "e", "mimeType": "text/plain", "size": 3, "description": "E\x00"}
    found = of(b=offering(resources=[resource]), a=offering(resources=[resource, {"uri": "mem://b"}]))

    assert [(each.uri, each.server.type) for each in found.resources] == [("mem://é", "a"), ("mem://b", "a")]
    assert found.resources[0].definition == {**resource, "description": "E"}
    assert found.resources[1].definition == {"uri": "mem://b", "name": "mem://b"}
    assert "server 'a' has the same URI" in notes_of(found, "b")


@pytest.mark.parametrize("uri", [None, "", "no-scheme", "mem://a b", "mem://a\x00", "x:" + "y" * 3000, 5])
def test_what_is_no_uri_is_left_out(uri: Any) -> None:
    found = of(a=offering(resources=[{"uri": uri}], templates=[{"uriTemplate": uri}]))

    assert (found.resources, found.templates) == ((), ())
    assert "left out" in notes_of(found, "a")


def test_templates_say_what_uris_of_theirs_begin_with() -> None:
    found = of(a=offering(templates=[{"uriTemplate": "mem://{id}/x", "name": "m"}, {"uriTemplate": "{any}"}]))

    assert [(each.template, each.prefix) for each in found.templates] == [("mem://{id}/x", "mem://")]
    assert "template '{any}' is left out: its uriTemplate is no URI" in notes_of(found, "a")


def test_prompts_are_named_as_tools_are() -> None:
    arguments = [{"name": "who", "required": True, "extra": 1}]
    found = of(
        a=offering(prompts=[{"name": "greet", "arguments": arguments}, {"name": "bye"}]),
        b=offering(prompts=[{"name": "greet"}, {"name": "x y"}, {"name": "z", "arguments": [{}]}]),
    )

    assert [(each.name, each.aliases) for each in found.prompts] == [
        ("a_greet", ()),
        ("bye", ("a_bye",)),
        ("b_greet", ()),
    ]
    assert found.prompts[0].definition["arguments"] == [{"name": "who", "required": True}]
    assert notes_of(found, "b").count("left out") == 2


def test_a_name_that_is_too_long_with_the_type_before_it_is_left_out_where_it_clashes() -> None:
    long = "x" * 126
    found = of(ab=offering(tool(long)), cde=offering(tool("short")))
    assert (found.tools[0].name, found.tools[0].aliases) == (long, ())

    found = of(ab=offering(tool(long)), cde=offering(tool(long)))
    assert names(found) == []
    assert "too long" in notes_of(found, "ab")
