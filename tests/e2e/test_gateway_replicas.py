"""Two instances of a gateway at one port, over Redis, as callers outside a whole mesh meet them."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import jwt
import psutil
import pytest
import pytest_asyncio
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from jwt.algorithms import ECAlgorithm
from tests.e2e.meshes import RunningMesh, eventually, running_mesh
from tests.e2e.messaging_mesh import (
    LIMIT,
    Caller,
    Journal,
    api_key,
    calling,
    document,
    manifest,
)
from tests.e2e.messaging_scenario import QUEUE, a_day_at_the_broker, broker, password_is_nowhere, stage
from tests.integration.sidecar_process import alive
from tests.pki import Pki
from tests.redis_server import RedisServer, redis_server

from weft.aio.ports import reserve_port
from weft.local.messaging_control import MessagingApi

pytestmark = pytest.mark.asyncio(loop_scope="module")

GATEWAYS = ("public-1", "public-2")
ISSUER = "https://login.example"
MAX_BODY = 65536


class Front:
    """The mesh, and its gateways as callers outside see them."""

    def __init__(
        self, mesh: RunningMesh, url: str, trust: ssl.SSLContext, journal: Journal, directory: Path
    ) -> None:
        self.mesh = mesh
        self.api = MessagingApi(mesh.api)
        self.url = url
        self.trust = trust
        self.journal = journal
        self.directory = directory
        self.shop: dict[str, str] = {}
        self.limited: dict[str, str] = {}
        """Keys of two customers, the second of whom may not do much, as headers that show them."""

    @asynccontextmanager
    async def at_each(self, headers: Mapping[str, str]) -> AsyncIterator[dict[str, Caller]]:
        """A caller at each of the gateways, by a connection that stays, once all of them let it in."""
        found: dict[str, Caller] = {}
        async with AsyncExitStack() as ends:

            async def all_found() -> bool:
                caller = await ends.enter_async_context(calling(self.url, headers, verify=self.trust))
                answer = await caller.http.get("/health")
                found.setdefault(self.serving(answer), caller)
                return found.keys() == {*GATEWAYS}

            await eventually(all_found, lambda: f"only {found} answer", pause=0.02)
            for caller in found.values():
                await answers(caller, 200)
            yield found

    def serving(self, answer: httpx.Response) -> str:
        """Which gateway's Envoy has the connection by which this came."""
        port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
        for name in GATEWAYS:
            if self.mesh.local.children[name].phase == "ready":
                connections = self.mesh.envoy(name).net_connections("tcp4")
                if port in [
                    each.raddr.port for each in connections if each.status == psutil.CONN_ESTABLISHED
                ]:
                    return name
        return ""

    async def ready(self) -> None:
        """Wait until both gateways serve."""
        for each in GATEWAYS:
            await self.mesh.ready(each)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[RedisServer, str]]:
    password = secrets.token_hex(16)
    async with redis_server(tmp_path_factory.mktemp("redis"), "--requirepass", password) as server:
        yield server, password


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(
    redis: tuple[RedisServer, str],
    key: ec.EllipticCurvePrivateKey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Front]:
    directory = tmp_path_factory.mktemp("front")
    journal = Journal(directory / "journal")
    pki = Pki()
    files = {"certificate": directory / "tls.pem", "key": directory / "tls.key"}
    for file, text in zip(files.values(), pki.svid("", dns_names=["localhost"]), strict=True):
        file.write_bytes(text)
    trust = ssl.create_default_context(cadata=pki.root.public_bytes(Encoding.PEM).decode())
    with reserve_port("127.0.0.1") as reserved:
        port = reserved.port
    async with issuer(key) as jwks_url:
        gateway = document(
            "Gateway",
            "public",
            port=port,
            replicas=2,
            tls={name: str(file) for name, file in files.items()},
            queues=[QUEUE],
            agents=["porter"],
            maxBodyBytes=MAX_BODY,
            rate={"requests": 100_000},
            jwt=[{"issuer": ISSUER, "audiences": ["shop"], "jwksUrl": jwks_url}],
            webhooks={"allowHttp": True, "allowNetworks": ["127.0.0.0/8"]},
        )
        server, password = redis
        resources = manifest(
            *broker("redis", server.url, password),
            document("Queue", "hidden"),
            gateway,
            *stage(journal, directory),
        )
        async with running_mesh(resources) as mesh:
            front = Front(mesh, f"https://localhost:{port}", trust, journal, directory)
            front.shop = await api_key(mesh, "public", "shop")
            front.limited = await api_key(mesh, "public", "limited", rate={"requests": 20, "per": "1h"})
            yield front


@pytest_asyncio.fixture(loop_scope="module")
async def shop(front: Front) -> AsyncIterator[dict[str, Caller]]:
    """A customer with an API key, at each of the gateways."""
    await front.ready()
    async with front.at_each(front.shop) as callers:
        yield callers


@asynccontextmanager
async def issuer(key: ec.EllipticCurvePrivateKey) -> AsyncIterator[str]:
    """Who signs tokens, and tells with which key."""
    public = {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "one", "alg": "ES256"}

    async def keys(_request: web.BaseRequest) -> web.Response:
        return web.json_response({"keys": [public]})

    runner = web.ServerRunner(web.Server(keys))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    finally:
        await runner.cleanup()


async def answers(caller: Caller, wanted: int) -> None:
    """Wait until a caller is let in (200), or no more (401)."""

    async def so() -> bool:
        return (await caller.http.get("/v1/webhook-secret")).status_code == wanted

    await eventually(so, lambda: f"the gateway never answered with {wanted}")


async def test_tasks_and_events_over_redis(front: Front, shop: dict[str, Caller]) -> None:
    await a_day_at_the_broker(front.mesh, shop["public-1"], front.journal)


async def test_each_caller_may_do_its_share_at_all_gateways_together(
    front: Front, shop: dict[str, Caller]
) -> None:
    async with front.at_each(front.limited) as callers:
        given = [
            await callers[GATEWAYS[number % 2]].http.post("/v1/agents/porter", json={})
            for number in range(30)
        ]
        counted = Counter(each.status_code for each in given)
        assert counted.keys() == {200, 429}
        assert 10 <= counted[200] <= 20
        refused = given[-1]
        assert refused.headers["x-weft-error"] == "rate-limited"
        assert int(refused.headers["retry-after"]) > 0
        await front.api.delete_key("public", "limited")
        for each in callers.values():
            await answers(each, 401)
    large = {"queue": QUEUE, "payload": "x" * MAX_BODY}
    for path in ("/v1/tasks", "/v1/agents/porter"):
        assert (await shop["public-1"].http.post(path, json=large)).status_code == 413


async def test_tokens_of_an_issuer_are_good_at_all_gateways_and_no_others(
    front: Front, shop: dict[str, Caller], key: ec.EllipticCurvePrivateKey
) -> None:
    claims = {"iss": ISSUER, "aud": "shop", "sub": "ada", "exp": time.time() + 600}
    token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": "one"})
    forged = jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": "one"})
    async with (
        front.at_each({"authorization": f"Bearer {token}"}) as ada,
        calling(front.url, {"authorization": f"Bearer {forged}"}, verify=front.trust) as mallory,
    ):
        task = await ada["public-1"].submit(QUEUE, {"number": 10})
        done = await ada["public-2"].ended(task)
        assert (done["state"], "ada" in done["submitter"]) == ("succeeded", True)
        await answers(mallory, 401)
        # What one caller submits is nobody else's.
        assert (await shop["public-1"].http.get(f"/v1/tasks/{task}")).status_code == 404


async def test_direct_calls_stream_and_reach_what_is_offered_as_whom_they_are_from(
    front: Front, shop: dict[str, Caller]
) -> None:
    caller = shop["public-2"]
    forged = {
        "x-weft-caller": "spiffe://weft.local/agent/scribe/scribe-1",
        "x-weft-to": "scribe",
        "x-weft-submitter": "nobody",
        "x-weft-door": "inside",
    }
    answer = await caller.http.post("/v1/agents/porter", json={}, headers=forged)
    told = answer.raise_for_status().json()["result"]
    assert told["x-weft-caller"] == "spiffe://weft.local/agent/public/public-2"
    assert told["x-weft-submitter"] == "public/key:shop"
    assert not {"x-api-key", "authorization", "x-weft-door", "x-weft-to"} & told.keys()
    for path in ("scribe", "control", "scribe-1.scribe", "porter/../scribe", "public", "door"):
        refused = await caller.http.post(f"/v1/agents/{path}", json={}, headers=forged)
        assert (path, refused.status_code) == (path, 404)
    for queue in ("hidden", "weft-webhooks", "missing"):
        refused = await caller.http.post("/v1/tasks", json={"queue": queue, "payload": {}}, headers=forged)
        assert (queue, refused.status_code) == (queue, 404)
    go = front.directory / "go"
    accept = {"accept": "text/event-stream"}
    async with (
        asyncio.timeout(LIMIT),
        caller.http.stream("POST", "/v1/agents/porter", json={}, headers=accept) as stream,
    ):
        lines = (line async for line in stream.aiter_lines() if line)
        assert await anext(lines) == 'data: "first"'
        go.touch()
        assert await anext(lines) == 'data: "second"'


async def test_a_task_is_followed_on_at_another_gateway_when_the_first_is_killed(
    front: Front, shop: dict[str, Caller], tmp_path: Path
) -> None:
    first, second = shop["public-1"], shop["public-2"]
    gate = tmp_path / "gate"
    task = await second.submit(QUEUE, {"number": 20, "steps": 4, "gate": str(gate)})
    endless = await first.submit(QUEUE, {"number": 21, "gate": str(tmp_path / "never")})
    path = f"/v1/tasks/{task}/events"
    heard: list[tuple[str, str, Any]] = []
    # Whether the program still gets to end the stream is a matter of luck.
    with suppress(httpx.TransportError):
        async with first.http.stream("GET", path) as stream:
            async for event in sse(stream):
                heard.append(event)
                if event[0] == "partial":
                    front.mesh.process("public-1").kill()
    assert "succeeded" not in str(heard)
    await front.mesh.notices("public-1")
    gate.touch()
    async with second.http.stream("GET", path, headers={"last-event-id": heard[-1][1]}) as stream:
        heard += [each async for each in sse(stream)]
    assert [data["data"] for name, _, data in heard if name == "partial"] == [0, 1, 2, 3]
    assert len({cursor for _, cursor, _ in heard}) == len(heard)
    assert heard[-1][2]["result"] == {"number": 20, "attempt": 1}
    assert (await second.http.post(f"/v1/tasks/{endless}/cancel")).status_code == 200
    assert (await second.ended(endless))["state"] == "cancelled"


async def sse(stream: httpx.Response) -> AsyncIterator[tuple[str, str, Any]]:
    """Name, id and data of the events of a stream."""
    fields: dict[str, str] = {}
    async for line in stream.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields["event"], fields["id"], json.loads(fields["data"])
            fields = {}


async def test_a_lost_broker_is_told_and_its_password_is_not(
    front: Front, redis: tuple[RedisServer, str]
) -> None:
    server, password = redis
    async with calling(front.url, front.shop, verify=front.trust) as caller:
        kept = await caller.submit(QUEUE, {"number": 40}, delay=1.0)
        await server.kill()
        refused = await caller.http.post("/v1/tasks", json={"queue": QUEUE, "payload": {"number": 41}})
        assert (refused.status_code, refused.headers["x-weft-error"]) == (503, "unavailable")
        assert password not in refused.text
        await server.start()
        assert (await caller.ended(kept))["state"] == "succeeded"

        async def taken() -> bool:
            body = {"queue": QUEUE, "payload": {"number": 42}}
            return (await caller.http.post("/v1/tasks", json=body)).status_code == 202

        await eventually(taken, lambda: "the gateway never found Redis again")
    await password_is_nowhere(front.mesh, password)


async def test_a_gateway_that_is_told_to_stop_fails_nobody(front: Front, shop: dict[str, Caller]) -> None:
    stopping = front.mesh.process("public-1")
    numbers = iter(range(1000, 100_000))
    finished = asyncio.Event()
    answers: Counter[int] = Counter()
    refusals: list[str] = []

    async def ask(caller: Caller) -> None:
        body = {"queue": QUEUE, "payload": {"number": next(numbers)}}
        answer = await caller.http.post("/v1/tasks", json=body, headers={"prefer": "wait=5"})
        answers[answer.status_code] += 1
        if answer.status_code not in (200, 202):
            refusals.append(f"{answer.status_code} {dict(answer.headers)} {answer.text}")

    async def customer(*, stays: bool) -> None:
        while not finished.is_set():
            # Gateways of one machine share their port. What the kernel had put before the one that stops, and
            # that had not accepted it yet, is reset: such a caller has not sent anything, and connects again.
            again = httpx.AsyncHTTPTransport(verify=front.trust, retries=3, trust_env=False)
            async with calling(front.url, front.shop, transport=again) as caller:
                await ask(caller)
                while stays and not finished.is_set():
                    await ask(caller)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(customer(stays=number % 2 == 0))
        stopping.terminate()

        async def over() -> bool:
            return not alive(stopping)

        await eventually(over, lambda: "the gateway never stopped", limit=60.0)
        finished.set()
    assert not refusals
    assert answers[200] > 0
