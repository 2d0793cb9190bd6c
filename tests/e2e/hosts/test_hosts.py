"""Several hosts, each with an address of its own: a mesh over them, and one of them cut off."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio
from tests.e2e import meshes
from tests.e2e.hosts.load import PAUSE, calling, written
from tests.e2e.hosts.network import Host, hosts
from tests.e2e.hosts.spread import PATIENCE, SpreadMesh, spread_mesh
from tests.e2e.leftovers import scope
from tests.e2e.messaging_mesh import LIMIT, document, manifest
from tests.hosting import hosted
from tests.integration.sidecar_process import alive

from weft import Mesh, NotFound, Unavailable
from weft.demo.crew import ABOUT, ROLES
from weft.demo.crew import manifest as crew_manifest
from weft.demo.fan_out import FanOut
from weft.demo.findings import About
from weft.local.gateway_run import GATEWAY_COMMAND, gateway_arguments
from weft.local.messaging_control import MessagingApi

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

HAND = Path(__file__).with_name("hand.py")
HAND_PROXY = 7481
"""On loopback of its host: the way out of a hand."""
HANDS = ("a", "b", "c")
"""Where an instance of type `hand` runs: `hand-a` and so on."""
CREW = {"lint": "ac", "security": "bc", "complexity": "ac", "dead-code": "bc"}
"""Where the instances of each kind of the review crew run: one of each where the cut will be."""
GATEWAY, GATEWAY_PORT, QUEUE = "public", 8080, "chores"
MEANWHILE = "declared-meanwhile"
FILES = 8


eventually = partial(meshes.eventually, limit=PATIENCE)


@pytest.fixture(scope="module")
def network() -> Iterator[dict[str, Host]]:
    """Three hosts for servers and agents, and one outside, where this is run meanwhile."""
    with hosts("a", "b", "c", "outside") as made, made["outside"].entered():
        yield made


class Stage:
    """The mesh with all its agents."""

    def __init__(self, mesh: SpreadMesh, network: dict[str, Host], tree: Path) -> None:
        self.mesh = mesh
        self.network = network
        self.instances = {f"hand-{each}" for each in HANDS} | {f"{GATEWAY}-a"}
        self.instances |= {f"{kind}-{host}" for kind, places in CREW.items() for host in places}
        self._tree = tree

    @property
    def files(self) -> list[str]:
        """What there is to review."""
        return sorted(each.name for each in self._tree.iterdir())

    def at(self, host: str) -> set[str]:
        """The instances on a host."""
        return {each for each in self.instances if each.endswith(f"-{host}")}

    def journal(self, host: str) -> Path:
        """What the hand there writes down."""
        return self.mesh.directory / f"journal-{host}"

    def processes(self) -> list[psutil.Process]:
        """All that runs on any host, but for what guards it."""
        found = [each for host in self.network.values() for each in host.processes()]
        return [each for each in found if each.name() != "sh"]

    async def begin(self) -> None:
        """Declare what is needed, start all agents, and wait until everybody knows of all of them."""
        for host in HANDS:
            command = [sys.executable, str(HAND), str(self.journal(host))]
            out = f"--outbound-port={HAND_PROXY}"
            self.mesh.run(self.network[host], "hand", f"hand-{host}", command, out)
        for kind, places in CREW.items():
            command = [sys.executable, "-P", "-m", "weft.demo.agents", kind, str(self._tree)]
            for host in places:
                self.mesh.run(self.network[host], kind, f"{kind}-{host}", command)
        own = self.network["a"].address
        async with self.mesh.api(self.network["a"]) as api:
            await api.apply(
                manifest(
                    crew_manifest(self._tree),
                    document("Queue", QUEUE, visibilityTimeout="10s"),
                    document("Gateway", GATEWAY, host=own, port=GATEWAY_PORT, rate={"requests": 100_000}),
                ),
                "test.yaml",
            )
        options = gateway_arguments(GATEWAY, own, GATEWAY_PORT)
        self.mesh.run(self.network["a"], GATEWAY, f"{GATEWAY}-a", GATEWAY_COMMAND, *options)
        for each in self.mesh.servers:
            await self.mesh.knows(each, *self.instances)

    @asynccontextmanager
    async def customer(self) -> AsyncIterator[httpx.AsyncClient]:
        """Somebody outside the mesh, with a key, at the gateway."""
        async with self.mesh.api(self.network["a"]) as api:
            made = await MessagingApi(api).create_key(GATEWAY, {"name": f"shop-{time.time_ns()}"})
        url = f"http://{self.network['a'].address}:{GATEWAY_PORT}"
        headers = {"x-api-key": made["key"]}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=LIMIT) as http:
            yield http


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(network: dict[str, Host], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    tree = tmp_path_factory.mktemp("tree")
    for number in range(FILES):
        (tree / f"module{number:02}.py").write_text("import os\n\n\ndef unused():\n    return 1\n")
    with scope() as inside:
        directory = tmp_path_factory.mktemp("spread")
        servers = [network[each] for each in HANDS]
        async with hosted(spread_mesh(directory, servers, network["outside"], inside.environ)) as mesh:
            stage = Stage(mesh, network, tree)
            await stage.begin()
            yield stage
        await inside.check_empty()


@dataclass
class Chores:
    """Tasks that were accepted, by number, and how often one was not."""

    accepted: dict[int, str] = field(default_factory=dict)
    refused: int = 0

    async def succeed(self, customer: httpx.AsyncClient) -> None:
        """Wait until all of them have been done."""
        left = set(self.accepted.values())
        seen: dict[str, str] = {}

        async def done() -> bool:
            for each in sorted(left):
                with suppress(httpx.TransportError):
                    answer = await customer.get(f"/v1/tasks/{each}")
                    seen[each] = answer.text
                    if answer.status_code == 200 and answer.json()["state"] == "succeeded":
                        left.discard(each)
            return not left

        await eventually(done, lambda: f"not done: {[seen.get(each) for each in left]}")


@asynccontextmanager
async def submitting(customer: httpx.AsyncClient) -> AsyncIterator[Chores]:
    """Within the context, one task after the other is submitted, each until it is accepted."""
    chores = Chores()
    over = asyncio.Event()

    async def submit(number: int) -> None:
        body = {"queue": QUEUE, "payload": {"number": number}}
        while number not in chores.accepted:
            with suppress(httpx.TransportError):
                answer = await customer.post(
                    "/v1/tasks", json=body, headers={"idempotency-key": f"chore-{number}"}
                )
                if answer.status_code == 202:
                    chores.accepted[number] = answer.json()["id"]
                    return
            chores.refused += 1
            await asyncio.sleep(PAUSE)

    async def go_on() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            await submit(number)
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        group.create_task(go_on())
        try:
            yield chores
        finally:
            over.set()


async def test_one_host_is_cut_off_in_the_midst_of_work_and_comes_back(stage: Stage) -> None:
    mesh, lost = stage.mesh, stage.network["c"]
    others = [each for each in mesh.servers if each is not lost]
    running = stage.processes()
    async with Mesh(proxy=mesh.proxy_url) as client, stage.customer() as customer:
        review = FanOut(client, stage.files, list(ROLES), lambda _: None)
        async with (
            calling(client, "hand", callers=3, repeatable=True) as keyed,
            calling(client, "hand", callers=3, repeatable=False) as plain,
            submitting(customer) as chores,
        ):

            async def at_work() -> bool:
                return plain.by("hand-c") > 0 and bool(written(stage.journal("c"), "task"))

            await eventually(at_work, lambda: f"nothing came to {lost.name}: {mesh.logs()}")
            reviewing = asyncio.create_task(review.run())
            half = asyncio.create_task(review.half_way.wait())
            await asyncio.wait([reviewing, half], return_when=asyncio.FIRST_COMPLETED)
            lost.cut_off()
            assert len(review.answers) < review.expected
            await reviewing
            for each in others:
                await mesh.knows(each, *stage.instances - stage.at("c"))
            await declare(mesh, others[0])
            await seen(mesh, others[1])
            accepted, answered = len(chores.accepted), len(keyed.answered)

            async def goes_on() -> bool:
                return len(chores.accepted) > accepted and len(keyed.answered) > answered

            await eventually(goes_on, lambda: f"{plain.failed} {keyed.failed} {chores.refused} {mesh.logs()}")
            assert await asyncio.to_thread(called_on, lost, "lint") == "lint-c"
            lost.join()
            await seen(mesh, lost)
            for each in mesh.servers:
                await mesh.knows(each, *stage.instances)
        await chores.succeed(customer)
        async with calling(client, "hand", callers=3, repeatable=False) as again:

            async def all_answer() -> bool:
                return all(again.by(f"hand-{each}") > 0 for each in HANDS)

            await eventually(all_answer, lambda: f"{again} {mesh.logs()}")
    assert not review.failures
    assert len(review.answers) == review.expected
    assert not keyed.failed
    # What was lost had been sent to the host that was cut off: nobody else ever saw any of it.
    elsewhere = written(stage.journal("a"), "call") | written(stage.journal("b"), "call")
    assert not plain.failed.keys() & elsewhere
    assert not again.failed

    async def whole() -> bool:
        copies = await mesh.copies()
        return bool(copies) and set(copies.values()) == {len(mesh.servers)}

    await eventually(whole, lambda: "NATS never had all copies again")
    assert [each for each in running if not alive(each)] == []


def called_on(host: Host, kind: str) -> str:
    """Which instance of type `kind` answers the hand there. For a thread of its own, which goes there."""

    async def answer() -> str:
        async with Mesh(proxy=f"http://127.0.0.1:{HAND_PROXY}") as mesh:
            about = await mesh.request(kind, ABOUT, result_type=About, timeout=LIMIT, idempotency_key="who")
            return about.instance

    with host.entered():
        return asyncio.run(answer())


async def declare(mesh: SpreadMesh, host: Host) -> None:
    """Declare something at the replica there, which takes NATS to take writes."""
    async with mesh.api(host) as api:

        async def accepted() -> bool:
            with suppress(Unavailable):
                await api.apply(document("TrafficPolicy", MEANWHILE, target={"type": "nobody"}), "test.yaml")
                return True
            return False

        await eventually(accepted, lambda: f"{host.name} never took it: {mesh.logs()}")


async def seen(mesh: SpreadMesh, host: Host) -> None:
    """Wait until the replica there knows of it."""
    async with mesh.api(host) as api:

        async def there() -> bool:
            with suppress(NotFound, Unavailable):
                return bool(await api.resource("TrafficPolicy", MEANWHILE))
            return False

        await eventually(there, lambda: f"{host.name} never heard of it: {mesh.logs()}")
