"""MCP servers for tests, made with the official SDK. Also a program: see `main`.

They speak both generations of the protocol, or are held to one of them: there is no switch for that in the
SDK, so what asks for the other one is answered as a server would that has never heard of it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp.shared.exceptions import MCPError
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from weft.sdk.server import bind, serving_http

SESSIONS = "2025-11-25"
STATELESS = "2026-07-28"

_ANY = {"type": "object", "properties": {"text": {"type": "string"}}}
_TOOLS = ("echo", "slow", "boom", "failing", "ask", "big", "headers", "cancelled")


@dataclass(slots=True)
class Toolbox:
    """What a server of tests has, and what it was asked."""

    name: str = "toolbox"
    tools: dict[str, dict[str, Any]] = field(default_factory=lambda: dict.fromkeys(_TOOLS, _ANY))
    """Input schemas by name, in order."""
    page: int = 100
    """Tools on a page."""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    """Tools that were called, with their arguments."""
    cancelled: int = 0
    """Calls of `slow` that were cancelled."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets `slow` end."""
    bus: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    sessions: dict[str | None, Any] = field(default_factory=dict)

    def server(self) -> Server[Any]:
        """An SDK server of it."""
        server: Server[Any] = _Telling(
            self.name,
            version="1.2",
            title="A toolbox",
            instructions="Use it well.",
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_completion=self._complete,
            on_subscriptions_listen=ListenHandler(self.bus),
        )
        return server

    async def change(self, name: str) -> None:
        """Have one tool more, and say so."""
        self.tools[name] = _ANY
        await self.bus.publish(ToolsListChanged())
        for session in list(self.sessions.values()):
            await session.send_tool_list_changed()

    async def _list_tools(self, ctx: Any, params: Any) -> types.ListToolsResult:
        if ctx.protocol_version < STATELESS:
            # The SDK makes a session object for every request: only the id tells which are the same.
            self.sessions[ctx.request.headers.get("mcp-session-id") if ctx.request else None] = ctx.session
        start = int(params.cursor) if params and params.cursor else 0
        names = list(self.tools)
        tools = [
            types.Tool(name=name, description=f"It is {name}.", input_schema=self.tools[name])
            for name in names[start : start + self.page]
        ]
        end = start + self.page
        return types.ListToolsResult(tools=tools, next_cursor=str(end) if end < len(names) else None)

    async def _call_tool(self, ctx: Any, params: Any) -> Any:
        if params.name not in self.tools:
            raise MCPError(-32602, f"Unknown tool: {params.name}")
        arguments = params.arguments or {}
        self.calls.append((params.name, arguments))
        match params.name:
            case "slow":
                await self._slow(ctx)
            case "boom":
                raise ValueError("its inside")
            case "failing":
                return types.CallToolResult(content=[_text("it did not work")], is_error=True)
            case "ask" if not getattr(params, "input_responses", None):
                return _question()
            case "big":
                return types.CallToolResult(content=[_text("x" * int(arguments["text"]))])
            case "headers":
                return types.CallToolResult(content=[], structured_content=dict(ctx.request.headers))
        text = str(self.cancelled if params.name == "cancelled" else arguments.get("text", ""))
        return types.CallToolResult(content=[_text(text)], structured_content={"text": text})

    async def _slow(self, ctx: Any) -> None:
        await ctx.session.report_progress(1, 2, "half way")
        try:
            await self.released.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise

    async def _list_resources(self, _ctx: Any, _params: Any) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=[types.Resource(uri="mem://é", name="note")])

    async def _list_templates(self, _ctx: Any, _params: Any) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(uri_template="mem://notes/{id}", name="notes")
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def _read_resource(self, _ctx: Any, params: Any) -> types.ReadResourceResult:
        contents = types.TextResourceContents(uri=params.uri, text=f"content of {params.uri}")
        return types.ReadResourceResult(contents=[contents])

    async def _list_prompts(self, _ctx: Any, _params: Any) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=[types.Prompt(name="greet", description="A greeting.")])

    async def _get_prompt(self, _ctx: Any, params: Any) -> types.GetPromptResult:
        message = types.PromptMessage(role="user", content=_text(f"say {params.name}"))
        return types.GetPromptResult(messages=[message])

    async def _complete(self, _ctx: Any, params: Any) -> types.CompleteResult:
        return types.CompleteResult(completion=types.Completion(values=[params.argument.value + "!"]))


class _Telling(Server[Any]):
    """A server that says to clients of both generations that its lists may change."""

    def create_initialization_options(self, *_: Any, **__: Any) -> Any:
        return super().create_initialization_options(NotificationOptions(tools_changed=True))


class McpApp:
    """A toolbox over streamable HTTP, at any path, as an ASGI application within `serving`."""

    def __init__(
        self, toolbox: Toolbox, *, only: str = "", json_response: bool = False, stateless: bool = False
    ) -> None:
        """`only`: SESSIONS or STATELESS, to be of that generation; else it is of both."""
        self.toolbox = toolbox
        self.requests: list[dict[str, str]] = []
        """Headers of all requests."""
        self.sessions = StreamableHTTPSessionManager(
            toolbox.server(), json_response=json_response, stateless=stateless
        )
        self._only = only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        self.requests.append({":method": scope["method"], **headers})
        refusal = self._refusal(headers.get("mcp-protocol-version", ""))
        app: ASGIApp = self.sessions.handle_request if refusal is None else refusal
        await app(scope, receive, send)

    def forget_sessions(self) -> None:
        """As if the server had been started anew."""
        self.sessions._server_instances.clear()

    def _refusal(self, version: str) -> JSONResponse | None:
        if self._only == SESSIONS and version >= STATELESS:
            return _error(-32600, f"Bad Request: Unsupported protocol version: {version}", "server-error")
        if self._only == STATELESS and version < STATELESS:
            data = {"supported": [STATELESS], "requested": version}
            return _error(-32022, "Unsupported protocol version", None, data)
        return None


@asynccontextmanager
async def serving_mcp(app: McpApp, port: int = 0) -> AsyncIterator[int]:
    """Serve `app` on loopback for the block; yields the port."""
    listener = bind("127.0.0.1", port)
    async with app.sessions.run(), serving_http(app, listener):
        yield listener.getsockname()[1]


def _question() -> types.InputRequiredResult:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    form = types.ElicitRequestFormParams(message="who?", requested_schema=schema)
    return types.InputRequiredResult(
        input_requests={"who": types.ElicitRequest(params=form)}, request_state="asked"
    )


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


def _error(code: int, message: str, id_: str | None, data: Any = None) -> JSONResponse:
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return JSONResponse({"jsonrpc": "2.0", "id": id_, "error": error}, 400)


async def _serve(arguments: argparse.Namespace) -> None:
    toolbox = Toolbox(name=arguments.name)
    if arguments.stdio:
        async with stdio_server() as (incoming, outgoing):
            server = toolbox.server()
            await server.run(incoming, outgoing, server.create_initialization_options())
        return
    app = McpApp(toolbox, only=arguments.only, json_response=arguments.json, stateless=arguments.stateless)
    if arguments.patient:
        config = uvicorn.Config(app, port=int(os.environ["PORT"]))
        async with app.sessions.run():
            await uvicorn.Server(config).serve()
        return
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving_mcp(app, int(os.environ["PORT"])))
        await asyncio.Event().wait()


def main() -> None:
    """Serve a toolbox at $PORT, or on standard input and output, until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="toolbox")
    parser.add_argument("--only", default="", choices=("", SESSIONS, STATELESS))
    parser.add_argument("--stdio", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stateless", action="store_true")
    parser.add_argument("--patient", action="store_true", help="it ends when the last client has gone")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
