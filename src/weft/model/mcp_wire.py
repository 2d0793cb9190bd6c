"""What Envoys, the control plane and sidecars tell each other about a call of a tool: headers and names.

Of MCP's own names, those of 2026-07-28; see <https://modelcontextprotocol.io/specification>. Headers marked
*mesh* are set by the Envoys of a call's two ends, whatever anybody else sends.
"""

from __future__ import annotations

from typing import Final

TOOLS_HOST: Final = "tools"
"""`http://tools.mesh/mcp` is every tool of the mesh."""

MCP_PATH: Final = "/mcp"
"""Where that server takes requests, and the control plane's part of it too."""

TOOLS_CALL: Final = "tools/call"
RESOURCES_READ: Final = "resources/read"
PROMPTS_GET: Final = "prompts/get"
COMPLETE: Final = "completion/complete"

ROUTED_METHODS: Final = (TOOLS_CALL, RESOURCES_READ, PROMPTS_GET, COMPLETE)
"""Methods of requests that Envoy sends to a server; all others are the control plane's."""

SESSION_HEADER: Final = "mcp-session-id"
"""MCP's, of 2025-11-25 and before."""

VERSION_HEADER: Final = "mcp-protocol-version"
METHOD_HEADER: Final = "mcp-method"
NAME_HEADER: Final = "mcp-name"
"""MCP's, of 2026-07-28. Names that no header can hold are written as `=?base64?...?=`."""

META_PREFIX: Final = "io.modelcontextprotocol/"
"""Begins MCP's own keys in `_meta`: `protocolVersion`, `clientInfo`, `clientCapabilities`."""

TOOL_HEADER: Final = "x-weft-tool"
"""mesh: the published name of the tool or prompt, or the resource's URI, written like `Mcp-Name`. Only calls
by way of `tools.mesh` have it."""

CLIENT_SESSION_HEADER: Final = "x-weft-mcp-session"
"""mesh: the `Mcp-Session-Id` that the client of `tools.mesh` has, if it has one."""

WHOLE_HEADER: Final = "x-weft-mcp-whole"
"""mesh: on a call that may be made again elsewhere, and whose client wants nothing before the result: `1`.
The callee's Envoy lets nothing of an answer go before all of it is there."""

MESH_HEADERS: Final = (TOOL_HEADER, CLIENT_SESSION_HEADER, WHOLE_HEADER)
"""Taken from what agents send."""

SESSION_LOST: Final = "session"
"""Value of `x-weft-refused` where a server does not know (any more) the session of a call."""

SESSIONS_CLUSTER: Final = "mcp-sessions"
"""Envoy's cluster, in the bootstrap of sidecars of MCP servers: the sidecar's service that keeps sessions.

Envoy asks it about each call by way of `tools.mesh` to a server that wants sessions: with the call's method
(POST), its path behind SESSIONS_PATH, and the headers SESSION_QUESTION. It answers 200 with `Mcp-Session-Id`
(without, if the server gave none) and `MCP-Protocol-Version`, which the call then has; else with a problem,
which becomes the answer.
"""

SESSIONS_PATH: Final = "/mcp-session"

ATTEMPT_HEADER: Final = "x-envoy-attempt-count"
"""The how manieth attempt this is: from the second on, the session is to be a new one."""

SESSION_QUESTION: Final = (TOOL_HEADER, CLIENT_SESSION_HEADER, "x-weft-caller", ATTEMPT_HEADER)
"""What the service hears of a call."""
