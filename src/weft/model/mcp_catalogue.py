"""All tools, resources and prompts of a mesh, as one MCP server has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from weft.model.offer import JsonObject, McpGeneration
from weft.model.tool import MAX_ARGUMENTS_BYTES, MAX_RESULT_BYTES


@dataclass(frozen=True, slots=True)
class McpServer:
    """One server: an agent type, all of whose instances are taken to list the same."""

    type: str
    path: str
    """Where its instances take requests."""
    generation: McpGeneration
    """The older one, if its instances differ."""
    completions: bool = False


@dataclass(frozen=True, slots=True)
class PublishedTool:
    """A tool under the name that clients see."""

    name: str
    server: McpServer
    original: str
    """What its server calls it."""
    definition: JsonObject
    """As clients see it: `name` is the published one."""
    aliases: tuple[str, ...] = ()
    """Names by which it can be called too, and under which it is not listed: `<type>_<name>`."""
    idempotent: bool = False
    timeout: float | None = None
    """Seconds; None: as the server's TrafficPolicy says."""
    max_arguments: int = MAX_ARGUMENTS_BYTES
    max_result: int = MAX_RESULT_BYTES


@dataclass(frozen=True, slots=True)
class PublishedPrompt:
    """A prompt under the name that clients see."""

    name: str
    server: McpServer
    original: str
    definition: JsonObject
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedResource:
    """A resource; its URI is its server's own."""

    uri: str
    server: McpServer
    definition: JsonObject


@dataclass(frozen=True, slots=True)
class PublishedTemplate:
    """A template of resources; what begins with its `prefix` is read from its server."""

    template: str
    prefix: str
    """The part before the first variable; not empty."""
    server: McpServer
    definition: JsonObject


@dataclass(frozen=True, slots=True)
class McpCatalogue:
    """What `tools.mesh` has. Lists are in the order in which clients see them."""

    servers: tuple[McpServer, ...] = ()
    tools: tuple[PublishedTool, ...] = ()
    resources: tuple[PublishedResource, ...] = ()
    templates: tuple[PublishedTemplate, ...] = ()
    prompts: tuple[PublishedPrompt, ...] = ()
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By server type: what was left out, or could not be read, and why."""


NO_TOOLS = McpCatalogue()
