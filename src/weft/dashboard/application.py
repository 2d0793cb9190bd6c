"""The dashboard as an ASGI application: who gets in, and with which headers everything is sent."""

from __future__ import annotations

import asyncio
import importlib
import secrets
from collections.abc import Callable, Collection
from ipaddress import ip_address
from typing import Any, Protocol, Self
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from weft.dashboard.api import Api
from weft.dashboard.feeds import Feeds
from weft.dashboard.login import code_page, login_page
from weft.dashboard.sessions import Seal, Sessions, secure
from weft.dashboard.viewer import Viewer
from weft.errors import MeshError, Unauthenticated

PATH = "/dashboard"
"""Where the dashboard is, at each server that serves it."""

MAX_FORM_BYTES = 4096
FAILURE_DELAY = 0.5
MAX_FAILURE_DELAY = 8.0
"""Seconds by which failed attempts to sign in are slowed down: each one doubles it, for its address."""

MAX_ATTEMPTS = 16
"""Attempts to sign in that may wait at a time; more are refused."""

_HUNG_UP = "No response returned."  # what Starlette's middleware says when a browser left before the answer
_LOGIN, _LOGOUT = f"{PATH}/login", f"{PATH}/logout"
_REMEMBERED = 1000  # addresses

_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' {evaluation}; style-src 'self' {style}; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
# By it a client could say under which path this is, which NiceGUI writes into its pages.
_DROPPED = frozenset({b"x-forwarded-prefix"})


class Codes(Protocol):
    """Codes by which somebody with a token signs in at a browser."""

    async def redeem(self, code: str) -> str:
        """The token for which `code` was made; it is used up. Raises Unauthenticated, Unavailable."""
        ...


class Dashboard:
    """The ASGI application. Use it as an async context manager: in the end nothing of it goes on."""

    def __init__(
        self, api: ASGIApp, *, seal: Seal, codes: Codes, failure_delay: float = FAILURE_DELAY
    ) -> None:
        """`api` is the control plane's API, `seal` the mesh's, so that any replica knows its cookies."""
        self.api = Api(api)
        self.feeds = Feeds(self.api)
        self._sessions = Sessions(seal)
        self._codes = codes
        self._failure_delay = failure_delay
        self._failures: dict[str, int] = {}
        self._attempts = 0
        self._loading = asyncio.Lock()
        self._pages: ASGIApp | None = None
        self._close_pages: Callable[[], Any] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.feeds.close()
        if self._close_pages is not None:
            await self._close_pages()
            self._close_pages = None

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one WebSocket."""
        if scope["type"] == "lifespan":
            return
        scope = {**scope, "headers": [each for each in scope["headers"] if each[0] not in _DROPPED]}
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        elif scope["path"] == _LOGIN:
            await self._login(scope, receive, send)
        elif scope["path"] == _LOGOUT:
            await self._logout(scope, send)
        else:
            await self._page(scope, receive, send)

    async def _page(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        polling = "/_nicegui_ws/" in scope["path"]
        if scope["path"].startswith(f"{PATH}/_nicegui/"):
            # Assets are the same for everybody, and no secret; still, nobody needs them without a session.
            if self._sessions.token(scope) is None:
                await _redirect(send, _LOGIN)
                return
        else:
            viewer = await self._viewer(scope)
            if viewer is None or (polling and not _same_origin(scope)):
                await (_answer(send, 403) if polling else _redirect(send, _LOGIN))
                return
            scope.setdefault("state", {}).update(viewer=viewer, dashboard=self)
        if scope["path"] == PATH:
            await _redirect(send, f"{PATH}/")
            return
        pages = await self._loaded()
        try:
            await pages(scope, receive, _Guarded(scope, send))
        except RuntimeError as error:
            if str(error) != _HUNG_UP:
                raise

    async def _socket(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        viewer = await self._viewer(scope) if _same_origin(scope) else None
        if viewer is None or self._pages is None:
            await receive()
            # Before it was accepted, that is an answer of 403.
            await send({"type": "websocket.close", "code": 1008})
            return
        scope.setdefault("state", {}).update(viewer=viewer, dashboard=self)
        await self._pages(scope, receive, send)

    async def _viewer(self, scope: AsgiScope) -> Viewer | None:
        """Who makes the request; None if nobody whose token is good now."""
        token = self._sessions.token(scope)
        if token is None:
            return None
        try:
            return await self.api.viewer(token, _address(scope))
        except MeshError:
            return None

    async def _login(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await self._sign_in(scope, receive, send)
            return
        if scope["method"] not in {"GET", "HEAD"}:
            await _answer(send, 405)
            return
        nonce = secrets.token_urlsafe(16)
        code = parse_qs(scope["query_string"].decode("latin-1")).get("code", [""])[0]
        if code:
            # Whoever lures somebody to a link with a code of his own is not to have it used unasked.
            at_once = _header(scope, b"sec-fetch-site") in {"", "none", "same-origin"}
            text = code_page(action=_LOGIN, nonce=nonce, code=code[:1000], at_once=at_once)
        else:
            problem = "You were signed out: the token is not good any more." if _ended(scope) else ""
            text = login_page(action=_LOGIN, nonce=nonce, problem=problem)
        await _html(send, 200, text, nonce)

    async def _sign_in(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if not _same_origin(scope):
            await _answer(send, 403)
            return
        form = parse_qs((await _body(receive, MAX_FORM_BYTES)).decode("latin-1"), max_num_fields=4)
        token, code = (form.get(each, [""])[0].strip() for each in ("token", "code"))
        if self._attempts >= MAX_ATTEMPTS:
            await _answer(send, 429)
            return
        self._attempts += 1
        try:
            viewer = await self._admitted(token, code, _address(scope))
        except MeshError as error:
            nonce = secrets.token_urlsafe(16)
            text = login_page(action=_LOGIN, nonce=nonce, problem=error.detail)
            await _html(send, error.status, text, nonce)
        else:
            cookie = self._sessions.begin(scope, viewer.token)
            await _redirect(send, f"{PATH}/", [(b"set-cookie", cookie.encode())])
        finally:
            self._attempts -= 1

    async def _admitted(self, token: str, code: str, address: str) -> Viewer:
        try:
            viewer = await self.api.viewer(await self._codes.redeem(code) if code else token, address)
        except Unauthenticated:
            failed = self._failures.pop(address, 0)
            self._failures[address] = failed + 1
            if len(self._failures) > _REMEMBERED:
                self._failures.pop(next(iter(self._failures)))
            await asyncio.sleep(min(self._failure_delay * 2.0 ** min(failed, 10), MAX_FAILURE_DELAY))
            raise
        self._failures.pop(address, None)
        return viewer

    async def _logout(self, scope: AsgiScope, send: Send) -> None:
        if scope["method"] != "POST" or not _same_origin(scope):
            await _answer(send, 405)
            return
        await _redirect(send, _LOGIN, [(b"set-cookie", self._sessions.end(scope).encode())])

    async def _loaded(self) -> ASGIApp:
        async with self._loading:
            if self._pages is None:
                # Half a second of imports, during which sidecars are to be served.
                surface = await asyncio.to_thread(importlib.import_module, "weft.dashboard.surface")
                self._pages, self._close_pages = await surface.start()
        return self._pages


class _Guarded:
    """Sends an answer of NiceGUI's with the headers that are to be there, and its scripts with a nonce."""

    def __init__(self, scope: AsgiScope, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._parts: list[bytes] = []
        if "/_nicegui" not in scope["path"]:
            # Pages are changed here, so they come as they are.
            scope["headers"] = [each for each in scope["headers"] if each[0] != b"accept-encoding"]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", []), *_HEADERS]
            kind = dict(headers).get(b"content-type", b"")
            if kind.startswith(b"text/html"):
                self._start = {**message, "headers": headers}
                return
            await self._send({**message, "headers": headers})
        elif self._start is None:
            await self._send(message)
        else:
            self._parts.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._page()

    async def _page(self) -> None:
        assert self._start is not None  # noqa: S101 -- or there would be nothing to send
        nonce = secrets.token_urlsafe(16)
        body = b"".join(self._parts).replace(b"<script", b'<script nonce="%s"' % nonce.encode())
        dropped = {b"content-length", b"cache-control"}
        headers = [each for each in self._start["headers"] if each[0] not in dropped]
        headers += [
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"content-security-policy", _policy(nonce, pages=True)),
        ]
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def local_only(application: ASGIApp, hosts: Collection[str]) -> ASGIApp:
    """`application` for callers who name one of `hosts` (none: any), and PATH for those who name no path.

    A name that leads to this machine though it is another's would let that one's pages in (DNS rebinding).
    """

    async def local(scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        named = urlsplit(f"//{_header(scope, b'host')}").hostname or ""
        if hosts and named not in hosts and not is_loopback(named):
            await _refuse(scope, receive, send, 421)
        elif scope["path"] == PATH or scope["path"].startswith(f"{PATH}/"):
            await application(scope, receive, send)
        elif scope["path"] == "/" and scope["type"] == "http":
            await _redirect(send, f"{PATH}/")
        else:
            await _refuse(scope, receive, send, 404)

    return local


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine, to itself."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _policy(nonce: str, *, pages: bool) -> bytes:
    # Vue compiles templates in the browser, and NiceGUI sends what is to be done as JavaScript.
    evaluation = "'unsafe-eval'" if pages else ""
    style = "'unsafe-inline'" if pages else f"'nonce-{nonce}'"
    return _POLICY.format(nonce=nonce, evaluation=evaluation, style=style).replace(" ;", ";").encode()


def _same_origin(scope: AsgiScope) -> bool:
    """Whether a request comes from a page of this very server."""
    origin = _header(scope, b"origin")
    if not origin and scope["type"] == "http":
        # Browsers name it whenever a page sends something; one that only reads may not.
        return scope["method"] in {"GET", "HEAD"} and _header(scope, b"sec-fetch-site") != "cross-site"
    scheme = "https" if secure(scope) else "http"
    return origin == f"{scheme}://{_header(scope, b'host')}"


def _ended(scope: AsgiScope) -> bool:
    return bytes(scope["query_string"]) == b"ended"


def _header(scope: AsgiScope, name: bytes) -> str:
    given = [value for key, value in scope["headers"] if key == name]
    return given[0].decode("latin-1") if len(given) == 1 else ""


def _address(scope: AsgiScope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


async def _body(receive: Receive, limit: int) -> bytes:
    """A request's body; none if it is longer than `limit`."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if message["type"] != "http.request" or len(body) > limit:
            return b""
        if not message.get("more_body"):
            return body


async def _refuse(scope: AsgiScope, receive: Receive, send: Send, status: int) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    await _answer(send, status)


async def _answer(
    send: Send, status: int, body: bytes = b"", headers: Collection[tuple[bytes, bytes]] = ()
) -> None:
    common = [*_HEADERS, (b"cache-control", b"no-store"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*common, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _redirect(send: Send, to: str, headers: Collection[tuple[bytes, bytes]] = ()) -> None:
    await _answer(send, 303, headers=[(b"location", to.encode()), *headers])


async def _html(send: Send, status: int, text: str, nonce: str) -> None:
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", _policy(nonce, pages=False)),
    ]
    await _answer(send, status, text.encode(), headers)
