"""Whatever servers list, clients get lists that hold to the schema, in which every name is one tool's."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from mcp_types import Prompt, Resource, ResourceTemplate, Tool
from pydantic import BaseModel

from weft.controlplane.mcp.catalogue import catalogue
from weft.model.agent import Instance, Status
from weft.model.mcp_catalogue import McpCatalogue
from weft.model.offer import McpGeneration, McpOffer, Offer
from weft.model.tool import ToolRule, ToolSpec

TEXTS = st.sampled_from(["", "text", "a\x00b", "\u202e", "\ud800", "\U000e0041", "\n", "é"])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(TEXTS, PLAIN, max_size=2)
SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.just("object") | VALUES,
        "properties": st.dictionaries(TEXTS, VALUES, max_size=3) | VALUES,
        "required": st.lists(TEXTS, max_size=2) | VALUES,
        "description": VALUES,
    },
)
NAMES = st.sampled_from(["x", "y", "a_x", "b_x", "a_a_x", "b_a_x", "x" * 127, "x y", "\u0445"]) | VALUES
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "title": VALUES,
    "description": VALUES,
    "annotations": VALUES
    | st.dictionaries(
        st.sampled_from(["title", "readOnlyHint", "idempotentHint", "audience", "priority", "lastModified"]),
        VALUES | st.lists(st.sampled_from(["user", "assistant"]), max_size=2),
    ),
    "icons": VALUES
    | st.lists(st.dictionaries(st.sampled_from(["src", "mimeType", "sizes", "theme"]), VALUES), max_size=2),
    "_meta": VALUES,
    "outputSchema": SCHEMAS | VALUES,
    "arguments": VALUES
    | st.lists(st.dictionaries(st.sampled_from(["name", "title", "required"]), VALUES), max_size=2),
    "mimeType": VALUES,
    "size": VALUES,
}
URIS = st.sampled_from(["mem://a", "mem://{id}", "MEM:\u00e9", "x:{"]) | VALUES


def entries(**required: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.fixed_dictionaries(required, optional=FIELDS), max_size=3)


OFFERS = st.builds(
    lambda tools, prompts, resources, templates: Offer(
        mcp=McpOffer(
            McpGeneration.STATELESS,
            tools=tuple(tools),
            prompts=tuple(prompts),
            resources=tuple(resources),
            templates=tuple(templates),
        )
    ),
    entries(name=NAMES, inputSchema=SCHEMAS | VALUES),
    entries(name=NAMES),
    entries(uri=URIS, name=VALUES),
    entries(uriTemplate=URIS, name=VALUES),
)
RULES = st.sampled_from(
    [
        [],
        [ToolSpec(server="a", tools=(ToolRule(name="x", rename="y"),))],
        [ToolSpec(server="a", prefix="b_")],
        [ToolSpec(server="a", tools=(ToolRule(name="y", rename="b_x"),)), ToolSpec(server="b", prefix="a_")],
    ]
)


@settings(max_examples=100, deadline=None)
@given(offers=st.tuples(OFFERS, OFFERS, OFFERS), rules=RULES)
def test_any_lists_make_a_catalogue_that_clients_can_read(
    offers: tuple[Offer, Offer, Offer], rules: list[ToolSpec]
) -> None:
    a, b, other = offers
    healthy = [Instance(each, "a", "127.0.0.1:1", Status.HEALTHY) for each in ("one", "two")]
    found = catalogue(
        {
            "a": [(healthy[0], a), (healthy[1], other)],
            "b": [(Instance("one", "b", "127.0.0.1:1", Status.HEALTHY), b)],
        },
        rules,
    )

    readable(found)
    for named in (found.tools, found.prompts):
        called = [name for each in named for name in (each.name, *each.aliases)]
        assert len(set(called)) == len(called)
        assert all(each.definition["name"] == each.name for each in named)
    assert len({each.uri for each in found.resources}) == len(found.resources)
    assert len({each.template for each in found.templates}) == len(found.templates)
    assert all(each.template.startswith(each.prefix) and ":" in each.prefix for each in found.templates)
    for note in (note for notes in found.notes.values() for note in notes):
        assert len(note) < 500


def readable(found: McpCatalogue) -> None:
    """Fail unless clients can read all of it."""
    kinds: tuple[tuple[Any, type[BaseModel]], ...] = (
        (found.tools, Tool),
        (found.prompts, Prompt),
        (found.resources, Resource),
        (found.templates, ResourceTemplate),
    )
    for published, model in kinds:
        for each in published:
            text = json.dumps(each.definition, ensure_ascii=False, allow_nan=False).encode()
            read = model.model_validate_json(text)
            again = read.model_dump(by_alias=True, exclude_none=True)
            assert json.loads(json.dumps(again)).keys() == each.definition.keys()
