"""Who gets keys of messages over the control plane's API, by certificate and AccessPolicy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope
from tests.control_access import MemoryAudit
from tests.pki import Pki

from weft.controlplane.api.access import control_access
from weft.controlplane.api.app import create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.message_custody import MessageCustody
from weft.controlplane.message_keys import MessageKeys
from weft.controlplane.sealing import Sealer
from weft.controlplane.sidecars import Sidecars
from weft.controlplane.tokens import Tokens
from weft.messaging.channel import Channel, ChannelKind
from weft.messaging.keyring import ConsumerKeyring, PublisherKeyring
from weft.messaging.keys import ConsumingKey, PublishingKey, parse_consuming_keys, parse_publishing_key
from weft.messaging.sealing import Binding
from weft.model.audit import Outcome
from weft.model.decision import AccessRequest, Decision, access_policies, decide
from weft.model.manifest import parse_documents
from weft.model.operator import Scope
from weft.model.spiffe import SpiffeId, agent_id, control_id
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.memory import MemoryStore

WRITER = agent_id("weft.local", "writer", "w-1")
READER = agent_id("weft.local", "reader", "r-1")
STRANGER = agent_id("weft.local", "stranger", "s-1")

MANIFEST = """
apiVersion: weft.dev/v1alpha1
kind: Topic
metadata: {name: news}
spec: {encrypted: true}
---
apiVersion: weft.dev/v1alpha1
kind: Queue
metadata: {name: tasks}
spec: {encrypted: true}
---
apiVersion: weft.dev/v1alpha1
kind: Topic
metadata: {name: open}
spec: {description: nothing to hide}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: closed}
spec: {default: deny}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: writers-write}
spec:
  effect: allow
  from: [{type: writer}]
  to: [{topic: news}, {queue: tasks}, {topic: open}, {topic: gone}]
  rules: [{actions: [publish, submit]}]
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: readers-read}
spec:
  effect: allow
  from: [{type: reader}]
  to: [{topic: news}, {queue: tasks}]
  rules: [{actions: [subscribe, consume]}]
"""


@dataclass
class Api:
    """The API, for clients of any identity."""

    tokens: Tokens
    custody: MessageCustody
    clients: AsyncExitStack
    pki: Pki = field(default_factory=Pki)
    log: MemoryAudit = field(default_factory=MemoryAudit)
    app: ASGIApp = field(init=False)

    async def by(self, caller: SpiffeId | None, token: str | None = None) -> httpx.AsyncClient:
        """A client that has shown a certificate, a token, or nothing."""
        chain = [] if caller is None else [self.pki.svid(caller)[0].decode()]
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(_Shown(self.app, chain))
        client = httpx.AsyncClient(transport=transport, base_url="https://control", headers=headers)
        return await self.clients.enter_async_context(client)

    async def with_token(self, scope: Scope) -> httpx.AsyncClient:
        return await self.by(None, (await self.tokens.create(scope, scope, created_by="tests"))[0])


class _Shown:
    """An application that is told the client's certificates, as the TLS server tells them."""

    def __init__(self, app: ASGIApp, chain: list[str]) -> None:
        self._app = app
        self._chain = chain

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "extensions": {"tls": {"client_cert_chain": self._chain}}}, receive, send)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    store = MemoryStore()
    resources = await Resources.open(store)
    await resources.apply(parse_documents(MANIFEST, ""))
    async with (
        View(await Registry.open(store)) as view,
        ResourceView.follow(resources) as declared,
        Tokens.follow(store) as tokens,
        AsyncExitStack() as clients,
    ):

        def decision(caller: SpiffeId, request: AccessRequest) -> Decision:
            return decide(access_policies(declared.resources.values()), caller, request)

        keys = await MessageKeys.open(store, Sealer([bytes(32)]))
        custody = MessageCustody(keys, lambda: declared.resources, decision)
        api = Api(tokens, custody, clients)
        access = control_access(tokens, api.log, bundles=api.pki.bundles, observer="control-1")
        context = ApiContext(
            view, resources, declared, await Sidecars.open(store), access=access, messages=custody
        )
        api.app = create_api(context, CollectorRegistry())
        yield api
    await store.close()


@pytest.mark.parametrize("kind", ChannelKind)
async def test_a_writer_seals_and_a_reader_opens_with_what_the_api_gives_them(
    api: Api, kind: ChannelKind
) -> None:
    channel = Channel(kind, "news" if kind is ChannelKind.TOPIC else "tasks")
    writer, reader = await api.by(WRITER), await api.by(READER)

    async def publishing_key() -> PublishingKey:
        answer = await writer.get(f"/v1/{channel.kind}s/{channel.name}/publishing-key")
        assert answer.headers["cache-control"] == "no-store"
        return parse_publishing_key(answer.json())

    async def consuming_keys() -> tuple[ConsumingKey, ...]:
        answer = await reader.get(f"/v1/{channel.kind}s/{channel.name}/consuming-keys")
        assert answer.headers["cache-control"] == "no-store"
        return parse_consuming_keys(answer.json())

    binding = Binding(channel, "m-1", "text/plain")
    sealed = await PublisherKeyring(channel, publishing_key).seal(b"hello", binding)
    assert await ConsumerKeyring(channel, consuming_keys).open(sealed, binding) == b"hello"


async def test_nobody_gets_keys_whom_the_policies_do_not_let_use_them(api: Api) -> None:
    await api.custody.keys.publishing_key(Channel(ChannelKind.TOPIC, "news"))
    publishing, consuming = "/v1/topics/news/publishing-key", "/v1/topics/news/consuming-keys"
    for caller, path in [
        (WRITER, consuming),
        (READER, publishing),
        (STRANGER, publishing),
        (STRANGER, consuming),
    ]:
        answer = await (await api.by(caller)).get(path)
        assert (answer.status_code, answer.headers["x-weft-error"]) == (403, "denied")
        assert "'closed'" in answer.json()["detail"]
        record = api.log.records[-1]
        assert (record.who, record.target, record.outcome) == (str(caller), "topic/news", Outcome.DENIED)
        assert "'closed'" in record.reason


async def test_no_token_no_control_plane_and_nobody_unknown_gets_keys(api: Api) -> None:
    await api.custody.keys.publishing_key(Channel(ChannelKind.QUEUE, "tasks"))
    foreign = Pki()
    callers = [
        (await api.with_token(Scope.ADMIN), 403),
        (await api.with_token(Scope.VIEWER), 403),
        (await api.by(control_id("weft.local", "control-2")), 403),
        (await api.by(None), 401),
    ]
    api.pki, own = foreign, api.pki
    callers.append((await api.by(READER), 401))
    api.pki = own
    for client, status in callers:
        for path in ("publishing-key", "consuming-keys"):
            assert (await client.get(f"/v1/queues/tasks/{path}")).status_code == status
    assert len([each for each in api.log.records if each.outcome is Outcome.DENIED]) == 2 * len(callers)


async def test_only_what_is_declared_and_encrypted_has_keys(api: Api) -> None:
    writer = await api.by(WRITER)
    gone = await writer.get("/v1/topics/gone/publishing-key")
    assert (gone.status_code, "declare it" in gone.text) == (404, True)
    plain = await writer.get("/v1/topics/open/publishing-key")
    assert (plain.status_code, "not encrypted" in plain.text) == (400, True)
    senseless = await writer.get("/v1/topics/No.Name/publishing-key")
    assert senseless.status_code == 400
    # Who may not publish does not hear what there is.
    stranger = await api.by(STRANGER)
    answers = [await stranger.get(f"/v1/topics/{each}/publishing-key") for each in ("gone", "open", "news")]
    assert {each.status_code for each in answers} == {403}


async def test_an_operator_rotates_keys_and_the_audit_tells(api: Api) -> None:
    viewer, operator = await api.with_token(Scope.VIEWER), await api.with_token(Scope.OPERATOR)
    assert (await viewer.post("/v1/topics/news/rotate-keys")).status_code == 403
    assert (await (await api.by(WRITER)).post("/v1/topics/news/rotate-keys")).status_code == 403
    rotated = await operator.post("/v1/topics/news/rotate-keys")
    assert rotated.status_code == 200
    record = api.log.records[-1]
    assert (record.who, record.action, record.target) == ("operator/operator", "rotate keys", "topic/news")
    current = await (await api.by(WRITER)).get("/v1/topics/news/publishing-key")
    assert current.json()["epoch"] == rotated.json()["epoch"] == record.details["epoch"]
    assert (await operator.post("/v1/topics/open/rotate-keys")).status_code == 400


async def test_the_encrypted_channels_are_known_to_who_tends_their_keys(api: Api) -> None:
    assert set(api.custody.encrypted()) == {
        Channel(ChannelKind.TOPIC, "news"),
        Channel(ChannelKind.QUEUE, "tasks"),
    }
