"""What one MCP server lists, as its instances say and as the Tool resource about it wants it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from weft.controlplane.mcp.cleaning import Unusable, clean_text, quoted
from weft.controlplane.mcp.definitions import (
    prompt_definition,
    resource_definition,
    template_definition,
    tool_definition,
)
from weft.model.agent import Instance, Status
from weft.model.mcp_catalogue import McpServer
from weft.model.offer import JsonObject, McpGeneration, McpOffer, Offer
from weft.model.tool import ToolLimits, ToolRule, ToolSpec

MAX_ENTRIES: Final = 1000
"""Tools of one server that are shown; likewise prompts, resources and templates."""

NO_RULES: Final = ToolSpec(server="any")
"""What holds for a server of which nothing is declared, whatever its type."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_MAX_ORIGINAL = 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """A tool or a prompt that is to be shown."""

    original: str
    """What its server calls it."""
    name: str
    """What it would be called if nobody else had that name."""
    definition: Mapping[str, Any]
    """Without a name."""
    declared: bool = False
    """Whether an operator gave the name."""
    idempotent: bool = False
    limits: ToolLimits = NO_RULES.limits


@dataclass(frozen=True, slots=True)
class ServerLists:
    """What a server has. Names, URIs and templates are there once each."""

    type: str
    server: McpServer | None = None
    """None: no instance could be read yet."""
    tools: tuple[Entry, ...] = ()
    prompts: tuple[Entry, ...] = ()
    resources: tuple[Mapping[str, Any], ...] = ()
    templates: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def server_lists(
    type_: str, offerings: Sequence[tuple[Instance, Offer]], rules: ToolSpec = NO_RULES
) -> ServerLists:
    """What the instances of a type list together.

    Those that get calls count, or all if none does. What several list is as the one that started last has it.
    """
    notes = [note for _, offer in offerings if _is_about_mcp(offer) for note in offer.notes]
    read = _serving([(instance, offer.mcp) for instance, offer in offerings if offer.mcp is not None])
    if not read:
        return ServerLists(type_, notes=tuple(clean_text(each) for each in notes))
    reading = _Reading(notes)
    return ServerLists(
        type_,
        _server(type_, read, notes),
        tools=reading.tools(_listed(each.tools for each in read), rules),
        prompts=reading.prompts(_listed(each.prompts for each in read)),
        resources=reading.by_uri("resource", "uri", _listed(each.resources for each in read)),
        templates=reading.by_uri("template", "uriTemplate", _listed(each.templates for each in read)),
        notes=tuple(clean_text(each) for each in notes),
    )


def _is_about_mcp(offer: Offer) -> bool:
    """Whether an offer's notes are about MCP too. Those of an agent that has a card only are not."""
    return offer.mcp is not None or offer.card is None


def _serving(read: Sequence[tuple[Instance, McpOffer]]) -> list[McpOffer]:
    healthy = [each for each in read if each[0].status is Status.HEALTHY]
    in_order = sorted(healthy or read, key=lambda each: (-each[0].started_at, each[0].id))
    return [offer for _, offer in in_order]


def _server(type_: str, read: Sequence[McpOffer], notes: list[str]) -> McpServer:
    if len({each.path for each in read}) > 1:
        notes.append(f"its instances take requests at different paths: all are sent to {read[0].path}")
    older = any(each.generation is McpGeneration.SESSIONS for each in read)
    return McpServer(
        type_,
        read[0].path,
        McpGeneration.SESSIONS if older else McpGeneration.STATELESS,
        completions=all(each.completions for each in read),
    )


def _listed(lists: Iterable[Sequence[JsonObject]]) -> list[JsonObject]:
    """All entries that any of the instances has; the same one of several is there several times."""
    return [entry for each in lists for entry in each]


@dataclass(slots=True)
class _Reading:
    """Reads the lists of one server, and notes what it leaves out."""

    notes: list[str] = field(default_factory=list)

    def tools(self, listed: Iterable[JsonObject], rules: ToolSpec) -> tuple[Entry, ...]:
        """The tools that are shown."""
        by_name = {each.name: each for each in rules.tools}
        found: dict[str, Entry] = {}
        for original, entry in self._by_name("tool", listed).items():
            rule = by_name.get(original)
            if rule is None and not rules.expose:
                continue
            if rule is not None and rule.hidden:
                continue
            tool = self._tool(original, entry, rule, rules)
            if tool is not None:
                self._add(tool, found)
        return self._limited("tools", tuple(found.values()))

    def prompts(self, listed: Iterable[JsonObject]) -> tuple[Entry, ...]:
        """The prompts that are shown."""
        found = []
        for original, entry in self._by_name("prompt", listed).items():
            shown = self._shown("prompt", original, entry, prompt_definition)
            if shown is not None and self._is_name("prompt", original):
                found.append(Entry(original, original, shown))
        return self._limited("prompts", tuple(found))

    def by_uri(self, what: str, key: str, listed: Iterable[JsonObject]) -> tuple[Mapping[str, Any], ...]:
        """The resources, or templates, that are shown."""
        read = resource_definition if key == "uri" else template_definition
        found: dict[str, Mapping[str, Any]] = {}
        for entry in listed:
            shown = self._shown(what, entry.get(key), entry, read)
            if shown is not None:
                found.setdefault(shown[key], shown)
        return self._limited(f"{what}s", tuple(found.values()))

    def _tool(self, original: str, entry: JsonObject, rule: ToolRule | None, rules: ToolSpec) -> Entry | None:
        renamed = rule.rename if rule is not None else None
        name = renamed if renamed is not None else rules.prefix + original
        shown = self._shown("tool", original, entry, tool_definition)
        if shown is None or not self._is_name("tool", name):
            return None
        if rule is not None and rule.description is not None:
            shown["description"] = rule.description
        hints = shown.get("annotations", {})
        idempotent = hints.get("idempotentHint") is True or hints.get("readOnlyHint") is True
        if rule is not None and rule.idempotent is not None:
            idempotent = rule.idempotent
        limits = rule.limits if rule is not None and rule.limits is not None else rules.limits
        return Entry(original, name, shown, renamed is not None, idempotent, limits)

    def _add(self, tool: Entry, found: dict[str, Entry]) -> None:
        """Add a tool; where two want one name, the one to which an operator gave it has it."""
        other = found.get(tool.name)
        if other is not None:
            loser = other if tool.declared else tool
            self.notes.append(
                f"tool {quoted(loser.original)} is left out: another one of the server is called "
                f"{tool.name!r} too"
            )
        if other is None or tool.declared:
            found[tool.name] = tool

    def _by_name(self, what: str, listed: Iterable[JsonObject]) -> dict[str, JsonObject]:
        """The first entry of each name."""
        found: dict[str, JsonObject] = {}
        for entry in listed:
            name = entry.get("name")
            if isinstance(name, str) and 0 < len(name) <= _MAX_ORIGINAL:
                found.setdefault(name, entry)
            else:
                self.notes.append(f"{what} {quoted(name)} is left out: that is no name")
        return found

    def _shown(
        self,
        what: str,
        name: object,
        entry: JsonObject,
        read: Callable[[JsonObject, list[str]], dict[str, Any]],
    ) -> dict[str, Any] | None:
        notes: list[str] = []
        try:
            return read(entry, notes)
        except Unusable as error:
            notes = [f"is left out: {error}"]
            return None
        finally:
            self.notes += [f"{what} {quoted(name)} {note}" for note in notes]

    def _is_name(self, what: str, name: str) -> bool:
        if _NAME.fullmatch(name):
            return True
        way_out = "; rename it by a Tool resource" if what == "tool" else ""
        self.notes.append(
            f"{what} {quoted(name)} is left out: a name has 1 to 128 of A-Z a-z 0-9 _ . -{way_out}"
        )
        return False

    def _limited(self, what: str, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(entries) > MAX_ENTRIES:
            self.notes.append(f"{len(entries) - MAX_ENTRIES} {what} are left out: it has {len(entries)}")
        return entries[:MAX_ENTRIES]
