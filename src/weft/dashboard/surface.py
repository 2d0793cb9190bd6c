"""NiceGUI, set up for the dashboard, and guarded. Imported with the first request that needs it.

NiceGUI has one application a process, so there is one dashboard a process that has loaded its pages.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI
from nicegui import Client, core, ui
from nicegui.persistence.persistent_dict import PersistentDict
from nicegui.storage import Storage
from socketio.exceptions import ConnectionRefusedError as Refused  # type: ignore[import-untyped]
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from weft.dashboard import pages
from weft.dashboard.page import register
from weft.dashboard.viewer import Viewer

RECONNECT_TIMEOUT = 20.0
"""Seconds for which a tab whose connection broke is waited for. Then what is kept of it goes, and when the
tab is back it begins anew. A tab that does not answer for 0.4 of it is taken for lost: on a busy machine that
happens within a few seconds."""

MAX_PAGES = 500
"""Pages that are kept at a time, each of which takes half a megabyte: until RECONNECT_TIMEOUT after their tab
was closed, or for a minute if no tab ever connected."""

MAX_PAGES_OF_VIEWER = 100
"""Likewise those of one token."""

MAX_LOGGED = 200
"""Characters of what a browser complains about that are logged, where that is wanted."""

_QUIET = ("nicegui", "engineio", "socketio", "engineio.server", "socketio.server")

logger = logging.getLogger(__name__)


async def start() -> tuple[ASGIApp, Callable[[], Awaitable[None]]]:
    """The application that serves the pages, and what ends it.

    Raises RuntimeError if there is one in this process already.
    """
    if core.app.middleware_stack is not None or core.loop is not None:
        raise RuntimeError("this process has a dashboard already")
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # It tells of each WebSocket, with the id of its page.
    logging.getLogger("uvicorn.error").addFilter(_tells_no_sockets)
    _keep_in_memory()
    for each in pkgutil.iter_modules(pages.__path__):
        importlib.import_module(f"{pages.__name__}.{each.name}")
    register()
    parent = FastAPI(openapi_url=None)
    ui.run_with(
        parent,
        mount_path="/dashboard",
        title="Weft",
        dark=None,
        tailwind=False,
        language="en-US",
        show_welcome_message=False,
        reconnect_timeout=RECONNECT_TIMEOUT,
        message_history_length=50,
        binding_refresh_interval=None,
    )
    lifespan = parent.router.lifespan_context(parent)
    await lifespan.__aenter__()
    _guard_sockets()

    async def close() -> None:
        await lifespan.__aexit__(None, None, None)

    return _bounded(parent), close


class _Memory(PersistentDict):
    """What NiceGUI would write into files in the working directory."""

    def __init__(self) -> None:
        super().__init__(data={}, on_change=lambda: None)

    async def initialize(self) -> None:
        """There is nothing to read."""

    def initialize_sync(self) -> None:
        """There is nothing to read."""


def _keep_in_memory() -> None:
    Storage._create_persistent_dict = staticmethod(lambda _id: _Memory())  # type: ignore[method-assign,assignment]
    core.app.storage._general = _Memory()


def _tells_no_sockets(record: logging.LogRecord) -> bool:
    text = str(record.msg)
    return record.levelno >= logging.WARNING or not ("WebSocket" in text or text.startswith("connection "))


def _bounded(application: ASGIApp) -> ASGIApp:
    """`application`, which makes no more pages than may be kept."""

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "/_nicegui" not in scope["path"] and _too_many(scope):
            text = "Too many pages of the dashboard are open: close some, and come back in a minute.\n"
            await PlainTextResponse(text, 429, {"retry-after": "60"})(scope, receive, send)
            return
        await application(scope, receive, send)

    return bounded


def _too_many(scope: Scope) -> bool:
    """Whether there are as many pages as there may be, of the one who asks for another or of all."""
    asking = scope["state"]["viewer"].key
    viewers = [each.request.scope.get("state", {}).get("viewer") for each in Client.instances.values()]
    own = sum(isinstance(each, Viewer) and each.key == asking for each in viewers)
    return len(viewers) >= MAX_PAGES or own >= MAX_PAGES_OF_VIEWER


def _guard_sockets() -> None:
    """Let nobody but its own viewer, over its own socket, attach to a page or speak for it.

    NiceGUI takes whoever knows a page's id for that page.
    """
    handlers: dict[str, Callable[..., Any]] = dict(core.sio.handlers["/"])
    core.sio.on("connect", _connecting(handlers["connect"]))
    core.sio.on("handshake", _shaking_hands(handlers["handshake"]))
    for name in ("event", "javascript_response", "ack"):
        core.sio.on(name, _of_its_own(handlers[name]))
    core.sio.on("log", _note)


def _connecting(connect: Callable[..., Any]) -> Callable[..., Any]:
    async def guarded(sid: str, environ: dict[str, Any], auth: Any = None) -> Any:
        query = parse_qs(str(environ.get("QUERY_STRING", "")))
        if not _is_viewer_of(environ, query.get("client_id", [""])[0]):
            raise Refused("Implicit handshake failed")  # upon which the browser loads the page anew
        return await connect(sid, environ, auth)

    return guarded


def _shaking_hands(handshake: Callable[..., Any]) -> Callable[..., Any]:
    async def guarded(sid: str, data: Any) -> Any:
        known = isinstance(data, dict) and _is_viewer_of(core.sio.get_environ(sid), data.get("client_id"))
        return await handshake(sid, data) if known else False

    return guarded


def _of_its_own(handle: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(sid: str, message: Any) -> Any:
        if not isinstance(message, dict):
            return None
        client = Client.instances.get(str(message.get("client_id")))
        if client is None or sid not in client._socket_to_document_id:
            return None
        return handle(sid, message)

    return guarded


def _note(_sid: str, message: Any) -> None:
    logger.debug("a browser says: %.*r", MAX_LOGGED, message)


def _is_viewer_of(environ: dict[str, Any], client_id: object) -> bool:
    """Whether the one who connects is the one for whom the page was made."""
    client = Client.instances.get(str(client_id))
    caller = environ.get("asgi.scope", {}).get("state", {}).get("viewer")
    if client is None or not isinstance(caller, Viewer):
        return False
    viewer = client.request.scope.get("state", {}).get("viewer")
    return isinstance(viewer, Viewer) and viewer.key == caller.key
