"""Who gets into the dashboard: over the real API, its store in memory. tests/e2e looks at the pages."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from tests.control_access import MemoryAudit
from tests.pki import Pki

from weft.controlplane.api.access import control_access
from weft.controlplane.api.app import create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.dashboard_codes import LIFETIME, DashboardCodes
from weft.controlplane.front import front
from weft.controlplane.sealing import Sealer
from weft.controlplane.sidecars import Sidecars
from weft.controlplane.tokens import Tokens
from weft.dashboard import Dashboard
from weft.dashboard.application import MAX_FORM_BYTES, local_only
from weft.model.operator import Scope
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.memory import MemoryStore

HERE = "http://127.0.0.1:7404"
LOGIN = "/dashboard/login"


@dataclass
class Stage:
    dashboard: Dashboard
    app: Any
    """API and dashboard, as at the API's port."""
    codes: DashboardCodes
    tokens: Tokens
    token: str
    audit: MemoryAudit
    now: list[float]
    http: httpx.AsyncClient

    async def sign_in(self, origin: str | None = HERE, **form: str) -> httpx.Response:
        headers = {} if origin is None else {"origin": origin}
        return await self.http.post(LOGIN, data=form, headers=headers)


def client(app: Any, url: str = HERE) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    store, pki, audit, now = MemoryStore(), Pki(), MemoryAudit(), [1_790_000_000.0]
    resources, seal = await Resources.open(store), Sealer([os.urandom(32)])
    async with (
        View(await Registry.open(store)) as view,
        ResourceView.follow(resources) as declared,
        Tokens.follow(store) as tokens,
    ):
        access = control_access(tokens, audit, bundles=pki.bundles, observer="control-1")
        codes = await DashboardCodes.open(store, seal, lambda: now[0])
        context = ApiContext(
            view, resources, declared, await Sidecars.open(store), access, dashboard_codes=codes
        )
        api = create_api(context, CollectorRegistry())
        dashboard = Dashboard(api, seal=seal, codes=codes, failure_delay=0.001)
        local = local_only(dashboard, ["localhost"])
        token, _ = await tokens.create("ada", Scope.VIEWER, created_by="tests")
        async with dashboard, client(local) as http:
            yield Stage(dashboard, front(api, dashboard), codes, tokens, token, audit, now, http)
    await store.close()


async def test_nobody_gets_in_without_a_session(stage: Stage) -> None:
    for path in ("/dashboard/", "/dashboard/agents", "/dashboard/_nicegui/3.18.0/static/nicegui.js"):
        answer = await stage.http.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, LOGIN)
    answer = await stage.http.get("/dashboard/_nicegui_ws/socket.io/?EIO=4&transport=polling")
    assert answer.status_code == 403


async def test_a_token_becomes_a_session_which_does_not_show_it(stage: Stage) -> None:
    answer = await stage.sign_in(token=stage.token)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/")
    cookie = answer.headers["set-cookie"]
    assert stage.token not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


async def test_a_wrong_token_is_refused_and_audited_and_the_next_attempt_may_be_right(stage: Stage) -> None:
    answer = await stage.sign_in(token="weft_" + "x" * 43)
    assert answer.status_code == 401
    assert "the token is not known" in answer.text
    assert "set-cookie" not in answer.headers
    [record] = stage.audit.records
    assert (record.action, record.who) == ("call api", "unauthenticated at 127.0.0.1")
    assert (await stage.sign_in(token=stage.token)).status_code == 303


async def test_what_is_no_token_is_refused_without_being_shown(stage: Stage) -> None:
    for token in ("", "<script>alert(1)</script>", "\x00", "x" * 300, "ä"):
        answer = await stage.sign_in(token=token)
        assert answer.status_code in {400, 401}, token
        assert "<script>alert" not in answer.text
    assert (await stage.sign_in(token="x" * MAX_FORM_BYTES)).status_code in {400, 401}


async def test_other_sites_sign_nobody_in(stage: Stage) -> None:
    for origin in (None, "null", "http://evil.example", "https://127.0.0.1:7404", "http://127.0.0.1:7405"):
        answer = await stage.sign_in(origin, token=stage.token)
        assert answer.status_code == 403, origin
        assert "set-cookie" not in answer.headers


async def test_a_code_is_good_once_and_for_a_minute(stage: Stage) -> None:
    code, expires = stage.codes.make(stage.token)
    assert stage.token not in code
    assert expires == stage.now[0] + LIFETIME
    shown = await stage.http.get(LOGIN, params={"code": code})
    assert shown.status_code == 200
    assert ".submit()" in shown.text
    assert "set-cookie" not in shown.headers  # what only looks uses nothing up
    assert (await stage.sign_in(code=code)).status_code == 303
    assert (await stage.sign_in(code=code)).status_code == 401
    late, _ = stage.codes.make(stage.token)
    stage.now[0] += LIFETIME
    assert (await stage.sign_in(code=late)).status_code == 401
    assert (await stage.sign_in(code=f"{code[:-4]}AAAA")).status_code == 401


async def test_a_link_of_another_site_signs_nobody_in_by_itself(stage: Stage) -> None:
    code, _ = stage.codes.make(stage.token)
    shown = await stage.http.get(LOGIN, params={"code": code}, headers={"sec-fetch-site": "cross-site"})
    assert ".submit()" not in shown.text
    hostile = await stage.http.get(LOGIN, params={"code": '"><script>alert(1)</script>'})
    assert "<script>alert" not in hostile.text


async def test_codes_are_for_holders_of_tokens(stage: Stage) -> None:
    async with client(stage.app, "https://control") as api:
        assert (await api.post("/v1/dashboard/codes", json={})).status_code == 401
        bearer = {"authorization": f"Bearer {stage.token}"}
        made = await api.post("/v1/dashboard/codes", json={}, headers=bearer)
        assert made.status_code == 201
        who = (await api.get("/v1/dashboard/session", headers=bearer)).json()
    assert who == {"name": "ada", "scope": "viewer", "mesh": "weft.local"}
    assert (await stage.sign_in(code=made.json()["code"])).status_code == 303
    assert stage.audit.records[-1].action == "make code"


async def test_a_revoked_token_makes_its_sessions_worthless(stage: Stage) -> None:
    await stage.sign_in(token=stage.token)
    await stage.tokens.revoke("ada")
    answer = await stage.http.get("/dashboard/agents")
    assert (answer.status_code, answer.headers["location"]) == (303, LOGIN)


async def test_the_login_page_runs_nothing_that_is_not_its_own(stage: Stage) -> None:
    answer = await stage.http.get(LOGIN)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_who_signs_out_has_no_session(stage: Stage) -> None:
    assert (await stage.http.get("/dashboard/logout")).status_code == 405
    await stage.sign_in(token=stage.token)
    answer = await stage.http.post("/dashboard/logout", headers={"origin": HERE})
    assert answer.headers["location"] == LOGIN
    assert not stage.http.cookies


async def test_the_port_of_its_own_serves_the_dashboard_to_this_machine_and_nothing_else(
    stage: Stage,
) -> None:
    assert (await stage.http.get("/")).headers["location"] == "/dashboard/"
    for path in ("/v1/agents", "/metrics", "/dashboards", "/docs"):
        assert (await stage.http.get(path)).status_code == 404
    for host, status in (("localhost:7404", 200), ("[::1]:7404", 200), ("evil.example", 421), ("", 421)):
        assert (await stage.http.get(LOGIN, headers={"host": host})).status_code == status, host


async def test_beside_the_api_the_dashboard_has_its_path_only(stage: Stage) -> None:
    async with client(stage.app, "https://control") as both:
        login = await both.get(LOGIN)
        assert login.headers["content-type"].startswith("text/html")
        for path in ("/dashboards", "/v1/agents"):
            assert (await both.get(path)).status_code == 401
        signed_in = await both.post(LOGIN, data={"token": stage.token}, headers={"origin": "https://control"})
    assert signed_in.headers["set-cookie"].startswith("__Host-weft-")
    assert "; Secure" in signed_in.headers["set-cookie"]


@pytest.mark.parametrize("path", ["/", "/v1/agents", "/dashboard/_nicegui_ws/socket.io/"])
async def test_websockets_of_strangers_are_refused(stage: Stage, path: str) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": path, "headers": [], "query_string": b"", "scheme": "wss"}
    await stage.app(scope, receive, send)
    assert [each["type"] for each in sent] == ["websocket.close"]
