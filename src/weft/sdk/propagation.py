"""Calls that a handler makes by other HTTP clients than Mesh pass on what its own call brought, too.

That is for `httpx`, `httpx2` and `aiohttp`, and with them for the clients of OpenAI, A2A and MCP that are
built on these; only for calls to hosts of the mesh, only inside a handler, and never over a header that the
call has already. Nothing is imported for it: a client is looked after from the first call on that is handled
after it was imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, Final
from urllib.parse import urlsplit

from weft.model.names import LOCALHOST_DOMAIN, MESH_DOMAIN
from weft.sdk.connection import PROXY_VARIABLE
from weft.sdk.inheritance import inheritance, inherited_headers

TO_HEADER: Final = "x-weft-to"
"""Names whom a call to the sidecar's own address is for."""

_MESH_HOSTS = (f".{MESH_DOMAIN}", f".{LOCALHOST_DOMAIN}")
_MODELS_PATH = "/v1/"

_looked_after: set[str] = set()
"""The clients of this process that pass on what calls bring. There is one of each in a process."""


def look_after_clients() -> None:
    """Have the HTTP clients that are imported by now pass on what calls bring, in the whole process."""
    for name, take_on in _CLIENTS.items():
        if name in sys.modules and name not in _looked_after:
            _looked_after.add(name)
            take_on(sys.modules[name])


def headers_for(url: str, given: Mapping[str, str]) -> dict[str, str]:
    """What a call to `url`, with the headers `given` (in any case), is to have besides."""
    if inheritance() is None or not _is_for_mesh(url, given):
        return {}
    return {name: value for name, value in inherited_headers().items() if name not in given}


def _is_for_mesh(url: str, given: Mapping[str, str]) -> bool:
    parts = urlsplit(url)
    if TO_HEADER in given or (parts.hostname or "").endswith(_MESH_HOSTS):
        return True
    # The sidecar's own address is that of models. With a host it is a call that Mesh makes.
    own = _address(os.environ.get(PROXY_VARIABLE, ""))
    at_sidecar = own is not None and (parts.hostname, parts.port) == own
    return at_sidecar and parts.path.startswith(_MODELS_PATH) and "host" not in given


@cache
def _address(url: str) -> tuple[str | None, int | None] | None:
    try:
        parts = urlsplit(url)
        at = parts.hostname, parts.port
    except ValueError:
        return None
    return at if url else None


def _take_on_httpx(module: Any) -> None:
    """For `httpx`, and its successor, which has the same classes: all requests go through `send`."""

    def add_headers(request: Any) -> None:
        # A client fills in `host` for itself.
        given = {name: value for name, value in request.headers.items() if name != "host"}
        request.headers.update(headers_for(str(request.url), given))

    def sending(send: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(send)
        def passing_on(client: Any, request: Any, *args: Any, **options: Any) -> Any:
            add_headers(request)
            return send(client, request, *args, **options)

        return passing_on

    for each in (module.Client, module.AsyncClient):
        each.send = sending(each.send)


def _take_on_aiohttp(module: Any) -> None:
    """For `aiohttp`, whose sessions make all requests by one method."""
    request = module.ClientSession._request

    @wraps(request)
    def passing_on(session: Any, method: str, url: Any, *args: Any, **options: Any) -> Any:
        if inheritance() is None:
            return request(session, method, url, *args, **options)
        given = session.headers.copy()
        given.update(options.get("headers") or {})
        if more := headers_for(str(session._build_url(url)), given):
            given.update(more)
            options["headers"] = given
        return request(session, method, url, *args, **options)

    module.ClientSession._request = passing_on


_CLIENTS: Mapping[str, Callable[[Any], None]] = {
    "httpx": _take_on_httpx,
    "httpx2": _take_on_httpx,
    "aiohttp": _take_on_aiohttp,
}
