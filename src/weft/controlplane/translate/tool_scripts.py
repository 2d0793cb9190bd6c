"""The Lua that Envoy runs for calls by way of `tools.mesh`."""

from __future__ import annotations

from functools import cache, lru_cache

from weft.controlplane.translate.lua_scripts import Value, constants, quoted, script, table
from weft.controlplane.translate.replies import DESTINATION_HEADER
from weft.model import mcp_wire
from weft.model.offer import McpGeneration
from weft.model.telemetry_wire import TOOL_KEY
from weft.model.tool import MAX_ARGUMENTS_BYTES, MAX_RESULT_BYTES

METADATA = "weft.tools"
"""Namespace of what the request's half leaves for the answer's, and for local replies.

`posted`: true on every POST; `call`, on those that can be answered: its `id` as it stands in JSON, and what
`mcp_answer.lua` has to know; `tool`: the name of a tool that there is.
"""

_ANSWER = ("json", "json_edits", "mcp_names", "mcp_errors", "mcp_answer")

_TIMEOUT_HEADER = "x-envoy-upstream-rq-timeout-ms"

_NAMES = constants(
    mcp_wire,
    "META_PREFIX",
    "SESSION_HEADER",
    "VERSION_HEADER",
    "METHOD_HEADER",
    "NAME_HEADER",
    "TOOL_HEADER",
    "CLIENT_SESSION_HEADER",
    "WHOLE_HEADER",
)


@cache
def answer_script() -> str:
    """Looks at answers of those to whom a request was sent on."""
    return script(_wire(), *_ANSWER)


@lru_cache(maxsize=4)
def request_script(context: str) -> str:
    """Reads requests, and sends them to their servers, of which the text `context` tells."""
    known = f"local CONTEXT = {quoted(context)}"
    return script(f"{_wire()}\n{known}", *_ANSWER, "mcp_context", "mcp_request")


@cache
def whole_script() -> str:
    """Keeps an answer back until all of it is there."""
    return script("", "mcp_whole")


def _wire() -> str:
    own: dict[str, Value] = {
        "METADATA": METADATA,
        "TOOL_KEY": TOOL_KEY,
        "DESTINATION_HEADER": DESTINATION_HEADER,
        "TIMEOUT_HEADER": _TIMEOUT_HEADER,
        "VERSION": McpGeneration.STATELESS.value,
        "OLD_VERSION": McpGeneration.SESSIONS.value,
        "MAX_REQUEST": MAX_ARGUMENTS_BYTES,
        "MAX_RESULT": MAX_RESULT_BYTES,
    }
    return f"local wire = {table({**_NAMES, **own})}"
