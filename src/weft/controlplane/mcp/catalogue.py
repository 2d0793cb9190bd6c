"""What `tools.mesh` has: the lists of all MCP servers as one, as the Tool resources want it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from weft.controlplane.mcp.cleaning import quoted
from weft.controlplane.mcp.definitions import prefix_of
from weft.controlplane.mcp.naming import Named, Wanted, name_all
from weft.controlplane.mcp.server_lists import NO_RULES, Entry, ServerLists, server_lists
from weft.model.agent import Instance
from weft.model.mcp_catalogue import (
    McpCatalogue,
    McpServer,
    PublishedPrompt,
    PublishedResource,
    PublishedTemplate,
    PublishedTool,
)
from weft.model.offer import Offer
from weft.model.resource import AnyResource
from weft.model.tool import ToolSpec

MAX_NOTES: Final = 100
"""Of one server."""

OffersByType = Mapping[str, Sequence[tuple[Instance, Offer]]]

_Notes = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class _Placed:
    """An entry, and whose it is."""

    server: McpServer
    entry: Entry


def catalogue(offers: OffersByType, tools: Iterable[ToolSpec] = ()) -> McpCatalogue:
    """The catalogue of what instances offer, by their types, with what is declared of their tools."""
    rules: dict[str, ToolSpec] = {}
    for spec in tools:
        rules.setdefault(spec.server, spec)
    return merged(server_lists(name, offers[name], rules.get(name, NO_RULES)) for name in offers)


def merged(lists: Iterable[ServerLists]) -> McpCatalogue:
    """The catalogue of what servers list."""
    lists = sorted(lists, key=lambda each: each.type)
    notes: _Notes = {each.type: list(each.notes) for each in lists}
    serving = [(each.server, each) for each in lists if each.server is not None]
    return McpCatalogue(
        servers=tuple(server for server, _ in serving),
        tools=tuple(_tools([_Placed(it, entry) for it, each in serving for entry in each.tools], notes)),
        prompts=tuple(
            _prompts([_Placed(it, entry) for it, each in serving for entry in each.prompts], notes)
        ),
        resources=tuple(_resources(serving, notes)),
        templates=tuple(_templates(serving, notes)),
        notes={name: _limited(each) for name, each in notes.items() if each},
    )


def declared_tools(resources: Iterable[AnyResource]) -> list[ToolSpec]:
    """The Tool resources among `resources`, by name."""
    found = [each for each in resources if isinstance(each.spec, ToolSpec)]
    return [each.spec for each in sorted(found, key=lambda each: each.metadata.name)]


def _tools(placed: Sequence[_Placed], notes: _Notes) -> Iterator[PublishedTool]:
    for each, named in _named(placed, "tool", notes):
        entry = each.entry
        yield PublishedTool(
            name=named.name,
            server=each.server,
            original=entry.original,
            definition={"name": named.name, **entry.definition},
            aliases=named.aliases,
            idempotent=entry.idempotent,
            timeout=entry.limits.timeout,
            max_arguments=entry.limits.max_arguments,
            max_result=entry.limits.max_result,
        )


def _prompts(placed: Sequence[_Placed], notes: _Notes) -> Iterator[PublishedPrompt]:
    for each, named in _named(placed, "prompt", notes):
        definition = {"name": named.name, **each.entry.definition}
        yield PublishedPrompt(named.name, each.server, each.entry.original, definition, named.aliases)


def _named(placed: Sequence[_Placed], what: str, notes: _Notes) -> Iterator[tuple[_Placed, Named]]:
    wanted = [Wanted(each.server.type, each.entry.name, each.entry.declared) for each in placed]
    for each, named in zip(placed, name_all(wanted), strict=True):
        if named is None:
            notes[each.server.type].append(
                f"{what} {quoted(each.entry.name)} is left out: others have the name too, and with the "
                "server's type before it it is too long; rename it by a Tool resource"
            )
        else:
            yield each, named


def _resources(
    serving: Iterable[tuple[McpServer, ServerLists]], notes: _Notes
) -> Iterator[PublishedResource]:
    owners: dict[str, str] = {}
    for server, lists in serving:
        for definition in lists.resources:
            if _is_first(definition["uri"], server, owners, notes):
                yield PublishedResource(definition["uri"], server, definition)


def _templates(
    serving: Iterable[tuple[McpServer, ServerLists]], notes: _Notes
) -> Iterator[PublishedTemplate]:
    owners: dict[str, str] = {}
    for server, lists in serving:
        for definition in lists.templates:
            template = definition["uriTemplate"]
            if _is_first(template, server, owners, notes):
                yield PublishedTemplate(template, prefix_of(template), server, definition)


def _is_first(uri: str, server: McpServer, owners: dict[str, str], notes: _Notes) -> bool:
    owner = owners.setdefault(uri, server.type)
    if owner != server.type:
        notes[server.type].append(f"resource {quoted(uri)} is left out: server {owner!r} has the same URI")
    return owner == server.type


def _limited(notes: Sequence[str]) -> tuple[str, ...]:
    distinct = tuple(dict.fromkeys(notes))
    if len(distinct) <= MAX_NOTES:
        return distinct
    return (*distinct[: MAX_NOTES - 1], f"… and {len(distinct) - MAX_NOTES + 1} more")
