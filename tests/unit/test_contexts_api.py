"""Contexts over the control plane's API, and by `weft context`: for operators; and members' tenants."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope
from tests.control_access import MemoryAudit
from tests.control_api import ServedApi, served_api
from tests.pki import Pki

from weft.cli.exit_codes import ExitCode
from weft.cli.main import run
from weft.controlplane.api import contexts as endpoints
from weft.controlplane.api.access import Gate, admit, control_access
from weft.controlplane.contexts import TenantContexts
from weft.controlplane.identities import Identities, Identity
from weft.controlplane.tokens import Tokens
from weft.errors import NotFound
from weft.model.operator import Scope
from weft.model.spiffe import agent_id, operator_id
from weft.problems.answers import answer_with_problems
from weft.store.memory import MemoryStore


class _Shown:
    """An application that is told the client's certificates, as the TLS server tells them."""

    def __init__(self, app: ASGIApp, chain: list[str]) -> None:
        self._app = app
        self._chain = chain

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "extensions": {"tls": {"client_cert_chain": self._chain}}}, receive, send)


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServedApi]:
    async with served_api(tmp_path) as served:
        for name, value in (await served.environ(Scope.OPERATOR)).items():
            monkeypatch.setenv(name, value)
        yield served


async def weft(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and what it prints."""
    code = await asyncio.to_thread(run, arguments)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@pytest.mark.parametrize("context_id", ["chat-1", "a/b c?d", "ä%2e#", "../x"])
async def test_an_operator_sees_a_conversation_and_can_forget_it(
    api: ServedApi, capsys: pytest.CaptureFixture[str], context_id: str
) -> None:
    contexts = (await TenantContexts.open(api.store, author="spiffe://x/agent/a/b")).of("acme")
    conversation = contexts.conversation(context_id, may_begin=True)
    for number in range(30):
        await conversation.append("user", f"[red]m{number}\x1b", n=number)
    await conversation.compare_and_set({"step": 7}, 0)
    await conversation.put_artifact("plan.txt", b"the plan", "text/plain")
    code, printed = await weft(capsys, "context", "show", context_id, "--tenant", "acme")
    assert code == ExitCode.OK, printed
    for part in ("[red]m29\\x1b", "m10", "a/b", '{"step": 7}', "plan.txt", "text/plain", "30", "7d"):
        assert part in printed
    assert "[red]m9\\x1b" not in printed
    arguments = ("context", "show", context_id, "--tenant=acme", "--messages=2", "-o", "json")
    code, printed = await weft(capsys, *arguments)
    found = json.loads(printed)
    assert [each["metadata"] for each in found["messages"]] == [{"n": 28}, {"n": 29}]
    assert (found["id"], found["messageCount"], found["state"]) == (context_id, 30, {"step": 7})
    assert found["artifacts"][0].keys() == {"name", "mediaType", "size", "sha256", "at"}
    code, _ = await weft(capsys, "context", "show", context_id)
    assert code == ExitCode.NOT_FOUND  # of another tenant
    code, _ = await weft(capsys, "context", "delete", context_id, "--tenant", "acme")
    assert code == ExitCode.OK
    with pytest.raises(NotFound):
        await contexts.conversation(context_id).messages()
    assert (await weft(capsys, "context", "delete", context_id, "--tenant", "acme"))[0] == ExitCode.NOT_FOUND


async def test_who_may_only_look_reads_no_conversations(
    api: ServedApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = (await TenantContexts.open(api.store, author="x")).of("default")
    await contexts.conversation("c", may_begin=True).append("user", "secret")
    for name, value in (await api.environ(Scope.VIEWER)).items():
        monkeypatch.setenv(name, value)
    for command in ("show", "delete"):
        code, printed = await weft(capsys, "context", command, "c")
        assert code == ExitCode.NOT_ALLOWED
        assert "secret" not in printed
    assert await contexts.conversation("c").count() == 1


async def test_each_member_is_told_its_own_tenant_as_it_was_attested() -> None:
    store, pki = MemoryStore(), Pki()
    acme, nobody, odd = (agent_id("weft.local", "scribe", each) for each in ("ann", "ben", "odd"))
    async with Identities.follow(store) as identities, Tokens.follow(store) as tokens:
        labels = {acme: {"tenant": "acme"}, nobody: {"team": "blue"}, odd: {"tenant": "a b.*>"}}
        for who, attested in labels.items():
            await identities.note(Identity(str(who), "1", time.time(), time.time() + 3600, "tests", attested))
        access = control_access(tokens, MemoryAudit(), bundles=pki.bundles, observer="control-1")
        app = FastAPI()
        app.state.context = SimpleNamespace(
            access=access, contexts=None, membership=SimpleNamespace(identities=identities)
        )
        app.add_middleware(Gate, access=access)
        answer_with_problems(app)
        admit(app, endpoints.router)
        door = operator_id("weft.local", "local", "door")
        expected = {acme: "acme", nobody: "default", odd: "a b.*>", door: "default"}
        for who, tenant in expected.items():
            transport = httpx.ASGITransport(_Shown(app, [pki.svid(who)[0].decode()]))
            async with httpx.AsyncClient(transport=transport, base_url="https://control") as client:
                answer = await client.get("/v1/tenant")
                assert answer.json() == {"tenant": tenant}
                assert (await client.get("/v1/contexts/c")).status_code == 403
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(_Shown(app, [])), base_url="https://control"
        ) as client:
            assert (await client.get("/v1/tenant")).status_code == 401
    await store.close()
