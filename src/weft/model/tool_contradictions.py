"""What Tools say that cannot all hold: each by itself, and together with others."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from weft.model.resource import AnyResource
from weft.model.tool import ToolSpec
from weft.model.yaml_tree import Path

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def of_tool(resource: AnyResource) -> Iterator[tuple[Path, str]]:
    """Of a Tool."""
    spec: ToolSpec = resource.spec
    seen: dict[str, str] = {}
    for index, rule in enumerate(spec.tools):
        if rule.hidden:
            continue
        name = rule.rename if rule.rename is not None else spec.prefix + rule.name
        place: Path = ("spec", "tools", index, "rename" if rule.rename is not None else "name")
        owner = seen.setdefault(name, rule.name)
        if not _NAME.fullmatch(name):
            message = "cannot be seen as it is: a name has 1 to 128 of A-Z a-z 0-9 _ . -, so rename it"
            yield place, message
        elif owner != rule.name:
            yield place, f"{owner!r} is seen as {name!r} already"


def tool_inconsistencies(resources: Collection[AnyResource]) -> Iterator[tuple[AnyResource, Path, str]]:
    """Among all resources: the one that should change, where, and why."""
    tools = [each for each in resources if isinstance(each.spec, ToolSpec)]
    servers: dict[str, str] = {}
    renames: dict[str, str] = {}
    for each in tools:
        name = each.metadata.name
        owner = servers.setdefault(each.spec.server, name)
        if owner != name:
            message = f"Tool {owner!r} is for server {each.spec.server!r} already: there can be one only, so "
            yield each, ("spec", "server"), f"{message}merge them"
        for index, rule in enumerate(each.spec.tools):
            owner = renames.setdefault(rule.rename, name) if rule.rename is not None else name
            if owner != name:
                place = ("spec", "tools", index, "rename")
                yield each, place, f"Tool {owner!r} gives the name {rule.rename!r} to another tool already"
