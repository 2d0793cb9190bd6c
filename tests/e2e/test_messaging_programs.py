"""Programs without the SDK do tasks and take events, over RabbitMQ, while they, sidecars and gateways die."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.e2e.meshes import RunningMesh, eventually, gone, running_mesh
from tests.e2e.messaging_mesh import Caller, Journal, api_key, calling, document, manifest
from tests.e2e.messaging_scenario import QUEUE, a_day_at_the_broker, broker, password_is_nowhere, stage
from tests.rabbitmq_server import MISSING, RabbitServer, rabbitmq_server
from tests.receivers import hang, receiver, status

from weft.aio.ports import reserve_port
from weft.local.messaging_control import MessagingApi

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
]

PORTERS = ("porter-1", "porter-2")


class Hall:
    """The mesh, and what its porters write down and look at."""

    def __init__(self, mesh: RunningMesh, caller: Caller, journal: Journal, directory: Path) -> None:
        self.mesh = mesh
        self.api = MessagingApi(mesh.api)
        self.caller = caller
        self.journal = journal
        self.directory = directory

    async def begun(self, number: int, times: int = 1) -> str:
        """Wait until a task has been begun so often: by whom the last time."""
        await self.journal.has(lambda journal: journal.counts("task")[str(number)] >= times)
        return [by for each, by, *_ in self.journal.of("task") if each == str(number)][-1]

    async def at_a_porter(self, number: int) -> tuple[str, str, Path]:
        """A task that a porter has begun: its id, who, and the file upon which it is done."""
        gate = self.directory / f"gate-{number}"
        task = await self.caller.submit("luggage", {"number": number, "gate": str(gate)})
        return task, await self.begun(number), gate

    async def ready(self) -> None:
        """Wait until all porters serve."""
        for each in PORTERS:
            await self.mesh.ready(each)
            await self.mesh.becomes("porter", each, "healthy")


async def add_user(server: RabbitServer, password: str) -> None:
    """Have a user `weft`, with what its management plugin must permit."""
    guest = server.username
    async with httpx.AsyncClient(
        base_url=server.management_url, auth=(guest, guest), trust_env=False
    ) as management:
        user = {"password": password, "tags": "policymaker,monitoring"}
        everything = dict.fromkeys(("configure", "write", "read"), ".*")
        for path, body in (("users/weft", user), ("permissions/%2F/weft", everything)):
            (await management.put(f"/api/{path}", json=body)).raise_for_status()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rabbit(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[RabbitServer, str]]:
    password = secrets.token_hex(16)
    async with rabbitmq_server(tmp_path_factory.mktemp("rabbit")) as server:
        await add_user(server, password)
        yield server, password


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hall(
    rabbit: tuple[RabbitServer, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hall]:
    directory = tmp_path_factory.mktemp("hall")
    journal = Journal(directory / "journal")
    server, password = rabbit
    with reserve_port("127.0.0.1") as reserved:
        port = reserved.port
    webhooks = {"allowHttp": True, "allowNetworks": ["127.0.0.0/8"]}
    tasks = [{"queue": "luggage", "concurrency": 2}]
    resources = manifest(
        *broker(
            "rabbitmq",
            server.url,
            password,
            username="weft",
            managementUrl=server.management_url,
        ),
        document("Queue", "luggage", visibilityTimeout="2s", backoff={"initial": "100ms"}),
        document("Gateway", "public", port=port, webhooks=webhooks, rate={"requests": 100_000}),
        *stage(journal, directory, porters=2, tasks=tasks),
    )
    async with running_mesh(resources) as mesh:
        key = await api_key(mesh, "public", "shop")
        async with calling(f"http://127.0.0.1:{port}", key) as caller:
            hall = Hall(mesh, caller, journal, directory)
            await let_in(caller)
            yield hall


async def let_in(caller: Caller) -> None:
    """Wait until the gateway knows the caller."""

    async def so() -> bool:
        try:
            return (await caller.http.get("/v1/webhook-secret")).status_code == 200
        except httpx.TransportError:
            return False

    await eventually(so, lambda: "the gateway never let the caller in")


async def test_tasks_and_events_over_rabbitmq(hall: Hall, rabbit: tuple[RabbitServer, str]) -> None:
    await a_day_at_the_broker(hall.mesh, hall.caller, hall.journal)
    await password_is_nowhere(hall.mesh, rabbit[1])


async def test_a_task_whose_program_or_sidecar_is_killed_is_done_by_another(hall: Hall) -> None:
    for number, victim in ((101, hall.mesh.program), (102, hall.mesh.process)):
        await hall.ready()
        task, first, gate = await hall.at_a_porter(number)
        program = hall.mesh.program(first)
        victim(first).kill()
        await hall.mesh.notices(first)
        await gone(program)  # which has a moment to end what it has, without its sidecar too
        await hall.begun(number, 2)
        gate.touch()
        done = await hall.caller.ended(task)
        assert (done["state"], done["result"]["number"], done["attempts"]) == ("succeeded", number, 2)
        assert hall.journal.counts("done")[str(number)] == 1


async def test_an_unhealthy_program_gets_no_tasks_until_it_is_well(hall: Hall) -> None:
    await hall.ready()
    sick, well = PORTERS
    mark = hall.directory / f"sick-{sick}"
    mark.touch()
    await hall.mesh.becomes("porter", sick, "unhealthy")
    tasks = [await hall.caller.submit("luggage", {"number": number}) for number in range(200, 210)]
    assert {(await hall.caller.ended(each))["result"]["by"] for each in tasks} == {well}
    mark.unlink()
    await hall.mesh.becomes("porter", sick, "healthy")
    gate = hall.directory / "gate-many"
    # More than one porter may hold: the one that is well again has a share.
    tasks = [
        await hall.caller.submit("luggage", {"number": number, "gate": str(gate)})
        for number in range(210, 214)
    ]
    await hall.journal.has(lambda journal: sum(journal.counts("task")[str(n)] for n in range(210, 214)) == 4)
    gate.touch()
    assert Counter([(await hall.caller.ended(each))["result"]["by"] for each in tasks]) == {sick: 2, well: 2}


async def test_a_draining_porter_finishes_what_it_has_and_takes_no_more(hall: Hall) -> None:
    await hall.ready()
    task, holder, gate = await hall.at_a_porter(300)
    hall.mesh.process(holder).terminate()
    await hall.mesh.becomes("porter", holder, "draining")
    others = [await hall.caller.submit("luggage", {"number": number}) for number in range(301, 305)]
    assert holder not in {(await hall.caller.ended(each))["result"]["by"] for each in others}
    gate.touch()
    done = await hall.caller.ended(task)
    assert (done["result"]["by"], done["attempts"]) == (holder, 1)
    await hall.mesh.notices(holder)


async def test_a_webhook_is_told_though_the_gateway_that_sends_it_is_killed(hall: Hall) -> None:
    secret = (await hall.caller.http.get("/v1/webhook-secret")).json()["secret"]
    async with receiver(hang, status(204)) as hook:
        task = await hall.caller.submit(QUEUE, {"number": 30}, webhook=hook.url)

        async def received(number: int) -> None:
            async def there() -> bool:
                return len(hook.received) >= number

            await eventually(there, lambda: f"only {hook.received}", limit=60.0)

        await received(1)
        hall.mesh.program("public-1").kill()
        await hall.mesh.notices("public-1")
        await received(2)
        await let_in(hall.caller)
        other = await hall.caller.submit(QUEUE, {"number": 31}, webhook=hook.url)
        await received(3)
    ids = Counter(each.headers["webhook-id"] for each in hook.received)
    assert ids == {f"{task}-succeeded": 2, f"{other}-succeeded": 1}
    keyed = base64.b64decode(secret.removeprefix("whsec_"))
    for each in hook.received:
        signed = f"{each.headers['webhook-id']}.{each.headers['webhook-timestamp']}.".encode() + each.body
        signature = base64.b64encode(hmac.digest(keyed, signed, hashlib.sha256)).decode()
        assert each.headers["webhook-signature"] == f"v1,{signature}"
