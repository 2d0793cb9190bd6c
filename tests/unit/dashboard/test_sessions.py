from __future__ import annotations

import os
from typing import Any

import pytest

from weft.controlplane.sealing import Sealer
from weft.dashboard.sessions import MAX_SESSION, Sessions

TOKEN = "weft_" + "x" * 43


def scope(cookie: str = "", *, scheme: str = "http", port: int = 7404) -> dict[str, Any]:
    headers = [(b"cookie", cookie.encode())] if cookie else []
    return {"scheme": scheme, "server": ("127.0.0.1", port), "headers": headers}


def pair(set_cookie: str) -> str:
    return set_cookie.partition(";")[0]


@pytest.fixture
def seal() -> Sealer:
    return Sealer([os.urandom(32)])


def test_a_cookie_gives_back_the_token_which_it_does_not_show(seal: Sealer) -> None:
    cookie = Sessions(seal).begin(scope(), TOKEN)
    assert TOKEN not in cookie
    assert Sessions(seal).token(scope(pair(cookie))) == TOKEN


def test_scripts_and_other_sites_have_no_use_of_the_cookie(seal: Sealer) -> None:
    plain, secured = (Sessions(seal).begin(scope(scheme=each), TOKEN) for each in ("http", "https"))
    for each in (plain, secured):
        assert "; HttpOnly" in each
        assert "; SameSite=Strict" in each
    assert secured.startswith("__Host-")
    assert "; Secure" in secured
    assert "; Secure" not in plain


def test_a_session_ends(seal: Sealer) -> None:
    now = [1000.0]
    sessions = Sessions(seal, lambda: now[0])
    cookie = pair(sessions.begin(scope(), TOKEN))
    now[0] += MAX_SESSION - 1
    assert sessions.token(scope(cookie)) == TOKEN
    now[0] += 1
    assert sessions.token(scope(cookie)) is None
    assert sessions.end(scope()).startswith("weft-7404=; Path=/; Max-Age=0;")


def test_what_was_not_sealed_here_is_no_session(seal: Sealer) -> None:
    other = pair(Sessions(Sealer([os.urandom(32)])).begin(scope(), TOKEN))
    good = pair(Sessions(seal).begin(scope(), TOKEN))
    for cookie in (
        "",
        "weft-7404=",
        "weft-7404=!!",
        "weft-7404=AAAA",
        other,
        good[:-6] + "AAAA==",
        "a;;;=\x01",
    ):
        assert Sessions(seal).token(scope(cookie)) is None, cookie


def test_two_meshes_on_one_machine_have_cookies_of_their_own(seal: Sealer) -> None:
    cookie = pair(Sessions(seal).begin(scope(port=7404), TOKEN))
    assert Sessions(seal).token(scope(cookie, port=7504)) is None
