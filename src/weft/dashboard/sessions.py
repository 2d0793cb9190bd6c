"""Sessions: cookies that hold the viewer's token, sealed. Nothing is kept, so any replica takes them."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Protocol

from starlette.types import Scope as AsgiScope

from weft.errors import MeshError

MAX_SESSION = 12 * 3600.0
"""Seconds after which one signs in anew, though the token may be good for longer."""

_CONTEXT = "dashboard session"
_MAX_COOKIE_BYTES = 8192


class Seal(Protocol):
    """Seals what others are to carry, and neither read nor make."""

    def seal(self, data: bytes, *, context: str) -> bytes:
        """`data`, sealed as `context`."""
        ...

    def open(self, sealed: bytes, *, context: str) -> bytes:
        """What was sealed as `context`. Raises MeshError."""
        ...


class Sessions:
    """Makes cookies of tokens and tokens of cookies."""

    def __init__(self, seal: Seal, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells the seconds since 1970."""
        self._seal = seal
        self._clock = clock

    def begin(self, scope: AsgiScope, token: str) -> str:
        """The Set-Cookie of a session of whoever holds `token`."""
        content = json.dumps({"token": token, "until": self._clock() + MAX_SESSION}).encode()
        sealed = base64.urlsafe_b64encode(self._seal.seal(content, context=_CONTEXT)).decode()
        return _set_cookie(scope, sealed, int(MAX_SESSION))

    def end(self, scope: AsgiScope) -> str:
        """The Set-Cookie that takes the session away."""
        return _set_cookie(scope, "", 0)

    def token(self, scope: AsgiScope) -> str | None:
        """The token in the cookie of a request; None without one, or with one that is not good any more."""
        given = _cookie(scope["headers"], _name(scope))
        if given is None:
            return None
        try:
            content = json.loads(self._seal.open(base64.urlsafe_b64decode(given), context=_CONTEXT))
            return str(content["token"]) if content["until"] > self._clock() else None
        except (MeshError, binascii.Error, ValueError, KeyError, TypeError):
            return None


def secure(scope: AsgiScope) -> bool:
    """Whether a request came over TLS."""
    return scope.get("scheme") in {"https", "wss"}


def _name(scope: AsgiScope) -> str:
    # Browsers keep cookies by host, whatever the port: two meshes on one machine must not end each other's.
    server = scope.get("server") or ("", 0)
    return f"{'__Host-' if secure(scope) else ''}weft-{server[1]}"


def _set_cookie(scope: AsgiScope, value: str, age: int) -> str:
    safety = "; Secure" if secure(scope) else ""
    return f"{_name(scope)}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{safety}"


def _cookie(headers: Iterable[tuple[bytes, bytes]], name: str) -> str | None:
    for key, value in headers:
        if key != b"cookie" or len(value) > _MAX_COOKIE_BYTES:
            continue
        try:
            found = SimpleCookie(value.decode("latin-1")).get(name)
        except CookieError:
            continue
        if found is not None:
            return found.value
    return None
